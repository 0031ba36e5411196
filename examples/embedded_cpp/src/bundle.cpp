#include "bundle.h"

#include <set>

#include "external_data.h"
#include "failure.h"
#include "files.h"
#include "paths.h"
#include "sha256.h"

namespace fs = std::filesystem;

namespace edgekit {
namespace {

constexpr const char* kManifest = "manifest.json";
constexpr const char* kGolden = "golden.npz";

// The files that are read when the bundle is used.
std::set<std::string> needed(const fs::path& folder, const Manifest& manifest, const fs::path& where) {
  const fs::path model = file_inside(manifest.model, folder, where);
  const fs::path beside = fs::path(manifest.model).parent_path();
  std::set<std::string> names{manifest.model, kGolden};
  if (model.extension() == ".onnx") {
    for (const std::string& name : external_files(model)) {
      file_inside(name, model.parent_path(), model);
      names.insert((beside / name).lexically_normal().generic_string());
    }
  } else if (model.extension() == ".xml") {
    names.insert(fs::path(manifest.model).replace_extension(".bin").generic_string());
  }
  return names;
}

void check_hashes(const fs::path& folder, const Manifest& manifest) {
  for (const auto& [name, said] : manifest.files) {
    const std::string found = sha256_of_file(folder / name);
    if (found != said) {
      throw Failure(folder.string() + ": the file '" + name + "' is damaged or was changed", "sha256 " + found,
                    "sha256 " + said, kAgain);
    }
  }
}

// No hash vouches for a file that the manifest does not list.
void check_nothing_else(const fs::path& folder, const Manifest& manifest) {
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.is_directory() && !entry.is_symlink()) continue;
    const std::string name = entry.path().lexically_relative(folder).generic_string();
    if (name != kManifest && manifest.files.count(name) == 0) {
      throw Failure(folder.string() + ": the file '" + name + "' is none of the bundle's", "",
                    std::string("the files that ") + kManifest + " lists, and no other", "remove what was added");
    }
  }
}

}  // namespace

Manifest check_bundle(const fs::path& folder) {
  const fs::path where = folder / kManifest;
  if (!fs::is_regular_file(where)) {
    throw Failure(folder.string() + ": no bundle here", std::string("no ") + kManifest, "",
                  "give a folder made by edgekit");
  }
  const Manifest manifest = parse_manifest(read_file(file_inside(kManifest, folder, folder)), where);
  for (const auto& [name, hash] : manifest.files) file_inside(name, folder, where);
  for (const std::string& name : needed(folder, manifest, where)) {
    if (manifest.files.count(name) == 0) {
      throw Failure(where.string() + ": the file '" + name + "' is not listed with its sha256", "", "", kAgain);
    }
  }
  check_hashes(folder, manifest);
  check_nothing_else(folder, manifest);
  return manifest;
}

}  // namespace edgekit
