#include "paths.h"

#include <algorithm>
#include <system_error>

#include "failure.h"

namespace fs = std::filesystem;

namespace edgekit {
namespace {

bool climbs(const std::string& name) {
  std::size_t start = 0;
  while (start <= name.size()) {
    const std::size_t end = std::min(name.find_first_of("/\\", start), name.size());
    if (name.compare(start, end - start, "..") == 0) return true;
    start = end + 1;
  }
  return false;
}

}  // namespace

void check_name(const std::string& name, const fs::path& where) {
  const bool absolute = name.empty() || name[0] == '/' || name[0] == '\\' || (name.size() > 1 && name[1] == ':');
  if (absolute || name.find('\0') != std::string::npos || climbs(name)) {
    throw Failure(where.string() + ": a file name points outside its folder", "'" + std::string(name.c_str()) + "'",
                  "relative paths inside the folder", "do not use this bundle; get it again from whoever made it");
  }
}

fs::path file_inside(const std::string& name, const fs::path& folder, const fs::path& where) {
  check_name(name, where);
  const fs::path file = folder / name;
  std::error_code problem;
  if (!fs::is_regular_file(file, problem)) {
    throw Failure(where.string() + ": the file '" + name + "' is missing", problem.message(), "", kAgain);
  }
  const fs::path home = fs::canonical(folder), real = fs::canonical(file);
  if (std::mismatch(home.begin(), home.end(), real.begin(), real.end()).first != home.end()) {
    throw Failure(where.string() + ": a file name points outside its folder through a link", "'" + name + "' is a link",
                  "files inside the folder", "copy the folder with its files, not with links to them");
  }
  return file;
}

}  // namespace edgekit
