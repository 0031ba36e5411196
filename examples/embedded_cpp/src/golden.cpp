#include "golden.h"

#include <algorithm>
#include <cstdio>
#include <fstream>

#include "failure.h"
#include "npz.h"
#include "numbers.h"

namespace fs = std::filesystem;

namespace edgekit {
namespace {

constexpr std::int64_t kChunk = 64;  // samples a query where the batch is open
const std::string kInput = "input/", kReference = "reference/", kArtifact = "artifact/";

// What a precision keeps on any engine, in dB.
const std::map<std::string, double> kParityDb{{"fp32", 90.0}, {"fp16", 35.0}, {"bf16", 35.0}};

std::string decimal(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f", value);
  return text;
}

// The batch that the model takes, or kOpen.
std::int64_t batch_of(const Manifest& manifest) {
  std::int64_t batch = kOpen;
  for (const Spec& spec : manifest.inputs) {
    const std::int64_t size = spec.shape.empty() ? kOpen : spec.shape[0];
    if (size == kOpen) continue;
    if (batch != kOpen && batch != size) throw Failure("the model's inputs have different batches");
    batch = size;
  }
  return batch;
}

std::int64_t samples_of(const Tensors& feeds) {
  std::int64_t count = 0;
  for (const auto& [name, tensor] : feeds) {
    const std::int64_t rows = tensor.shape.empty() ? 0 : tensor.shape[0];
    if (rows == 0 || (count != 0 && rows != count)) {
      throw Failure("every input needs the same number of samples, and at least one", name + ": " + text_of(tensor.shape));
    }
    count = rows;
  }
  if (count == 0) throw Failure("there are no inputs");
  return count;
}

// Appends the first rows of a batch's output.
void join(Tensor& whole, const Tensor& part, std::int64_t count) {
  const Tensor cut = rows(part, 0, count);
  if (whole.shape.empty()) {
    whole = cut;
    return;
  }
  if (!std::equal(whole.shape.begin() + 1, whole.shape.end(), cut.shape.begin() + 1, cut.shape.end())) {
    throw Failure("an output has another size for other samples", text_of(cut.shape), text_of(whole.shape));
  }
  whole.shape[0] += count;
  whole.bytes.insert(whole.bytes.end(), cut.bytes.begin(), cut.bytes.end());
}

Tensors golden_arrays(const fs::path& file, const Manifest& manifest) {
  std::vector<std::string> names;
  for (const Spec& spec : manifest.inputs) names.push_back(kInput + spec.name);
  for (const Spec& spec : manifest.outputs) names.insert(names.end(), {kReference + spec.name, kArtifact + spec.name});
  Tensors arrays = read_npz(file, names);
  for (const auto& [name, tensor] : arrays) {
    if (tensor.shape.empty() || tensor.shape[0] != manifest.golden.samples) {
      throw Failure(file.string() + ": its arrays do not hold the samples the manifest counts",
                    name + ": " + text_of(tensor.shape), std::to_string(manifest.golden.samples) + " samples", kAgain);
    }
  }
  return arrays;
}

double worst_db(const Tensors& golden, const std::string& kind, const Tensors& outputs, const fs::path& file) {
  double worst = kBestDb;
  for (const auto& [name, tensor] : outputs) {
    const Tensor& known = golden.at(kind + name);
    if (known.shape != tensor.shape) {
      throw Failure(file.string() + ": array '" + kind + name + "' has another shape than the model's output",
                    text_of(known.shape), text_of(tensor.shape), kAgain);
    }
    worst = std::min(worst, snr_db(known, tensor));
  }
  return worst;
}

// The manifest's floor; on another build or CPU no more than fp32 keeps on any, for that may be the very bits of the
// reference; and where another engine recorded it, no more than the precision keeps.
double asked_db(const Manifest& manifest, bool same_build) {
  const double floor = same_build ? manifest.golden.floor_db : std::min(manifest.golden.floor_db, kParityDb.at("fp32"));
  const std::string& version = manifest.golden.engine_version;
  const std::string recorder = version.substr(0, version.find(' '));
  const bool other = recorder != manifest.engine &&
                     (recorder == "onnxruntime" || recorder == "openvino" || recorder == "tensorrt" || recorder == "null");
  const auto kept = kParityDb.find(manifest.precision);
  return other && kept != kParityDb.end() ? std::min(floor, kept->second) : floor;
}

const char* word(bool good) { return good ? "good" : "FAILED"; }

}  // namespace

Tensors run_batched(Session& session, const Tensors& feeds, const Manifest& manifest) {
  const std::int64_t count = samples_of(feeds), batch = batch_of(manifest);
  const std::int64_t step = batch == kOpen ? std::min(kChunk, count) : batch;
  Tensors joined;
  for (std::int64_t start = 0; start < count; start += step) {
    const std::int64_t size = std::min(step, count - start);
    const std::int64_t fed = batch == kOpen ? size : batch;  // the last sample pads the last batch
    Tensors part;
    for (const auto& [name, tensor] : feeds) part.emplace(name, rows(tensor, start, fed));
    for (const auto& [name, tensor] : session.run(part)) {
      if (tensor.shape.empty() || tensor.shape[0] != fed) {
        throw Failure("output '" + name + "' has no batch axis, so samples cannot be run in batches",
                      text_of(tensor.shape) + " from a batch of " + std::to_string(fed));
      }
      join(joined.try_emplace(name, Tensor{tensor.type, {}, {}}).first->second, tensor, size);
    }
  }
  return joined;
}

Verification verify(const fs::path& bundle, const Manifest& manifest, Session& session) {
  const fs::path file = bundle / "golden.npz";
  const Tensors golden = golden_arrays(file, manifest);
  Tensors inputs;
  for (const Spec& spec : manifest.inputs) inputs.emplace(spec.name, golden.at(kInput + spec.name));
  const Tensors outputs = run_batched(session, inputs, manifest);
  const std::string version = session.version(), cpu = cpu_model();
  const bool same_build = version == manifest.golden.engine_version && cpu == manifest.golden.cpu_model;
  Verification found{manifest.golden.samples, worst_db(golden, kReference, outputs, file), asked_db(manifest, same_build),
                     {}, false, "", ""};
  if (same_build) found.own_db = worst_db(golden, kArtifact, outputs, file);
  const bool close = found.reference_db >= found.floor_db, own = !found.own_db || *found.own_db >= kOwnFloorDb;
  found.passed = close && own;
  found.reference_message = "reference: " + decimal(found.reference_db) + " dB, at least " + decimal(found.floor_db) +
                            " asked: " + word(close);
  found.own_message = "its own outputs: ";
  if (found.own_db) {
    found.own_message += decimal(*found.own_db) + " dB, at least " + decimal(kOwnFloorDb) + " asked: " + word(own);
  } else {
    found.own_message += "not compared, they were recorded by " + manifest.engine + " " + manifest.golden.engine_version +
                         " on " + manifest.golden.cpu_model + ", this is " + version + " on " + cpu;
  }
  return found;
}

std::string cpu_model() {
  std::ifstream cpuinfo("/proc/cpuinfo");
  std::map<std::string, std::string> first;
  for (std::string line; std::getline(cpuinfo, line);) {
    const std::size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    const std::size_t end = line.find_last_not_of(" \t", colon - 1), start = line.find_first_not_of(" \t", colon + 1);
    const std::size_t stop = line.find_last_not_of(" \t");
    if (colon == 0 || end == std::string::npos) continue;
    first.try_emplace(line.substr(0, end + 1), start == std::string::npos ? "" : line.substr(start, stop - start + 1));
  }
  if (first.count("model name") != 0) return first["model name"];
  if (first.count("CPU part") == 0 || first.count("CPU implementer") == 0) return "unknown";
  return "ARM " + first["CPU implementer"] + " part " + first["CPU part"];
}

}  // namespace edgekit
