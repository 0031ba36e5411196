// sha256 as 64 hex digits.
#pragma once

#include <filesystem>
#include <string>

namespace edgekit {

std::string sha256_of(const std::string& bytes);

// Of a file's bytes; throws Failure where it cannot be read.
std::string sha256_of_file(const std::filesystem::path& file);

}  // namespace edgekit
