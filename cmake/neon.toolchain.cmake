# Cross-compiles the library for 64-bit Arm with Debian's compiler (g++-aarch64-linux-gnu): a check that the NEON
# kernels build. Headers of header-only dependencies are this machine's.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_CXX_FLAGS_INIT "-march=armv8.2-a+dotprod+crypto")
# Only compiled against, never linked: the library is static.
set(fmt_DIR /usr/lib/${CMAKE_HOST_SYSTEM_PROCESSOR}-linux-gnu/cmake/fmt CACHE PATH "")
set(SNUG_HWY_LIBRARY hwy CACHE STRING "")
