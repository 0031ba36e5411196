// What a bundle says of itself, in manifest.json.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <variant>
#include <vector>

#include "tensor.h"

namespace edgekit {

using Option = std::variant<bool, std::int64_t, double, std::string>;

struct Golden {
  std::int64_t samples;
  double floor_db;
  std::string engine_version;  // engine build that made the artifact's own outputs, and the CPU it ran on
  std::string cpu_model;
};

struct Manifest {
  std::string engine;
  std::string precision;
  std::string model;  // the file an engine opens, relative to the bundle
  std::vector<Spec> inputs;
  std::vector<Spec> outputs;
  std::map<std::string, Option> options;
  std::map<std::string, std::string> files;  // sha256 by name
  Golden golden;
};

// Parses a manifest; throws Failure where it is of a newer schema, is no manifest, was changed since it was written, or
// names a file outside the bundle.
Manifest parse_manifest(const std::string& text, const std::filesystem::path& where);

}  // namespace edgekit
