#include "files.h"

#include <fstream>
#include <system_error>

#include "failure.h"

namespace fs = std::filesystem;

namespace edgekit {

std::string read_file(const fs::path& file) {
  std::error_code problem;
  const auto size = fs::file_size(file, problem);
  std::string bytes(problem ? 0 : size, '\0');
  std::ifstream stream(file, std::ios::binary);
  if (problem || !stream.read(bytes.data(), static_cast<std::streamsize>(bytes.size()))) {
    throw Failure(file.string() + ": cannot be read", problem ? problem.message() : "", "", "check the file and its rights");
  }
  return bytes;
}

}  // namespace edgekit
