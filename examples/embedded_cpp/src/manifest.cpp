#include "manifest.h"

#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>
#include <set>

#include "canonical.h"
#include "failure.h"
#include "paths.h"
#include "sha256.h"

namespace fs = std::filesystem;
using Json = nlohmann::json;

namespace edgekit {
namespace {

constexpr std::int64_t kSchema = 1;  // edgekit/artifact.py: SCHEMA_VERSION

void check_schema(const Json& raw, const std::string& where) {
  const Json version = raw.is_object() ? raw.value("schema_version", Json()) : Json();
  const bool whole = version.is_number_integer();
  if (whole && version > kSchema) {
    throw Failure(where + ": this bundle was written in schema " + version.dump(), "",
                  "schema " + std::to_string(kSchema) + " or older", "build this program from a newer EdgeKit");
  }
  if (!whole || version < 1) {
    throw Failure(where + ": not a manifest of an EdgeKit bundle", "schema_version " + version.dump(),
                  "schema_version " + std::to_string(kSchema),
                  "give the folder of a bundle, made with `edgekit deploy` or `edgekit export`");
  }
}

// The id is the hash of all but itself and the timings, and these have a hash of their own; each where it is written.
// A field that was added to the schema later and is null is not part of it, so that older bundles keep their id.
void check_id(Json raw, const std::string& where) {
  const std::string id = raw.at("id").get<std::string>(), timed = raw.at("timings_sha256").get<std::string>();
  const std::string timings = sha256_of(canonical(raw.at("timings")));
  for (const char* key : {"timings", "timings_sha256", "id"}) raw.erase(key);
  for (auto field = raw.begin(); field != raw.end();) {
    const bool absent = field->is_null() && field.key() != "preprocessing";
    field = absent ? raw.erase(field) : std::next(field);
  }
  const std::string hash = sha256_of(canonical(raw));
  if (hash != id) throw Failure(where + ": damaged or changed", "id " + hash, "id " + id, kAgain);
  if (!timed.empty() && timings != timed) {
    throw Failure(where + ": damaged or changed", "timings_sha256 " + timings, "timings_sha256 " + timed, kAgain);
  }
}

std::vector<Spec> specs(const Json& raw, const std::string& where) {
  std::vector<Spec> found;
  for (const Json& one : raw) {
    Spec spec{one.at("name"), type_named(one.at("dtype"), where), {}};
    for (const Json& dim : one.at("shape")) {
      const bool size = dim.is_number_integer() && dim > 0;
      if (!size && !dim.is_string()) throw Failure(where + ": a shape is none", one.at("shape").dump(), "", kAgain);
      spec.shape.push_back(size ? dim.get<std::int64_t>() : kOpen);
    }
    found.push_back(std::move(spec));
  }
  if (found.empty()) throw Failure(where + ": a model without inputs or outputs", "", "", kAgain);
  return found;
}

std::map<std::string, Option> options(const Json& raw, const std::string& where) {
  std::map<std::string, Option> found;
  for (const auto& [key, value] : raw.items()) {
    if (value.is_boolean()) {
      found[key] = value.get<bool>();
    } else if (value.is_number_integer()) {
      found[key] = value.get<std::int64_t>();
    } else if (value.is_number_float()) {
      found[key] = value.get<double>();
    } else if (value.is_string()) {
      found[key] = value.get<std::string>();
    } else {
      throw Failure(where + ": option '" + key + "' is no value", value.dump(), "text, a number, true or false", kAgain);
    }
  }
  return found;
}

std::optional<Preprocessing> preprocessing(const Json& raw, const std::string& where) {
  if (raw.is_null()) return std::nullopt;
  Preprocessing found{raw.at("input"), raw.at("layout"), raw.at("model_layout"), raw.at("scale"), raw.at("mean"), raw.at("std"), {}};
  const std::set<std::string> layouts{"NHWC", "NCHW", "NHW", "any"};
  bool good = layouts.count(found.layout) != 0 && (found.model_layout == "NCHW" || found.model_layout == "NHWC");
  good = good && !found.mean.empty() && !found.std.empty() && std::count(found.std.begin(), found.std.end(), 0.0) == 0;
  if (!raw.at("resize").is_null()) {
    found.resize = raw.at("resize").get<std::pair<std::int64_t, std::int64_t>>();
    good = good && raw.at("resize").size() == 2 && std::min(found.resize->first, found.resize->second) > 0;
  }
  if (!good) throw Failure(where + ": the preprocessing is none that is known here", raw.dump(), "", kAgain);
  return found;
}

Golden golden(const Json& raw) {
  return Golden{raw.at("samples"), raw.at("floor_db"), raw.at("engine_version"), raw.at("cpu_model")};
}

}  // namespace

Manifest parse_manifest(const std::string& text, const fs::path& path) {
  const std::string where = path.string();
  const Json raw = parse_json(text, where);
  check_schema(raw, where);
  try {
    check_id(raw, where);
    Manifest manifest{raw.at("engine"),
                      raw.at("precision"),
                      raw.at("model"),
                      specs(raw.at("inputs"), where),
                      specs(raw.at("outputs"), where),
                      options(raw.at("options"), where),
                      preprocessing(raw.at("preprocessing"), where),
                      raw.at("files").get<std::map<std::string, std::string>>(),
                      golden(raw.at("golden"))};
    check_name(manifest.model, where);
    for (const auto& [name, hash] : manifest.files) check_name(name, where);
    return manifest;
  } catch (const Json::exception& problem) {  // a key is missing, or its value of another type
    throw Failure(where + ": not a manifest of an EdgeKit bundle", problem.what(), "", kAgain);
  }
}

}  // namespace edgekit
