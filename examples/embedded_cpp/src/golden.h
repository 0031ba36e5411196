// Golden samples: inputs whose outputs are known, run again here; as edgekit/runtime/golden.py.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "engine.h"
#include "manifest.h"

namespace edgekit {

struct Verification {
  std::int64_t samples;
  double reference_db;           // worst signal-to-noise ratio of an output against the reference's
  double floor_db;               // what the manifest asks of it
  std::optional<double> own_db;  // against the artifact's own outputs; on the build and CPU that recorded them
  bool passed;
  std::string reference_message, own_message;
};

inline constexpr double kOwnFloorDb = 80.0;

// Runs the golden samples and compares; throws Failure where the golden file does not fit, or the engine fails.
Verification verify(const std::filesystem::path& bundle, const Manifest& manifest, Session& session);

// Runs any number of samples in batches of the size that the model takes.
Tensors run_batched(Session& session, const Tensors& feeds, const Manifest& manifest);

// The model of this machine's CPU, as the kernel names it, or "unknown".
std::string cpu_model();

}  // namespace edgekit
