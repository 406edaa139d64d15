# Install rules and the package that find_package(snug) finds.
