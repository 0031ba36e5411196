// What a bundle says of itself, in manifest.json.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "tensor.h"

namespace edgekit {

using Option = std::variant<bool, std::int64_t, double, std::string>;

// From a raw sample to a model tensor.
struct Preprocessing {
  std::string input;         // the model input it feeds
  std::string layout;        // axes of a raw batch: NHWC, NCHW, NHW, or any (kept as it is)
  std::string model_layout;  // NCHW or NHWC
  double scale;
  std::vector<double> mean, std;                             // per channel, after scaling; one value: all channels
  std::optional<std::pair<std::int64_t, std::int64_t>> resize;  // height and width in pixels
};

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
  std::optional<Preprocessing> preprocessing;
  std::map<std::string, std::string> files;  // sha256 by name
  Golden golden;
};

// Parses a manifest; throws Failure where it is of a newer schema, is no manifest, was changed since it was written, or
// names a file outside the bundle.
Manifest parse_manifest(const std::string& text, const std::filesystem::path& where);

}  // namespace edgekit
