# Install rules and the package that find_package(snug) finds.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

install(TARGETS snug EXPORT snug-targets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(TARGETS snug_cli RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(DIRECTORY ${PROJECT_SOURCE_DIR}/src/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/snug
  FILES_MATCHING PATTERN "*.h" PATTERN "cli" EXCLUDE)
install(EXPORT snug-targets NAMESPACE snug:: DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/snug)
configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/snug-config.cmake.in snug-config.cmake
  INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/snug)
write_basic_package_version_file(snug-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/snug-config.cmake
  ${CMAKE_CURRENT_BINARY_DIR}/snug-config-version.cmake
  DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/snug)
