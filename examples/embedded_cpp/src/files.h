// Whole files.
#pragma once

#include <filesystem>
#include <string>

namespace edgekit {

// All bytes of a file; throws Failure where it cannot be read.
std::string read_file(const std::filesystem::path& file);

}  // namespace edgekit
