#include "engine.h"

#include "affinity.h"
#include "failure.h"

namespace fs = std::filesystem;

namespace edgekit {

#ifndef EDGEKIT_OPENVINO
std::unique_ptr<Session> open_openvino(const fs::path&, const Manifest&) {
  throw Failure("this program was built without OpenVINO", "a bundle for openvino", "",
                "build it with -DEDGEKIT_OPENVINO=ON, or make the bundle with --engine onnxruntime");
}
#endif

std::unique_ptr<Session> open_session(const fs::path& bundle, const Manifest& manifest, const std::string& library) {
  const fs::path model = bundle / manifest.model;
  const auto cpus = manifest.options.find(kCpus);
  if (cpus != manifest.options.end()) stay_on(cpus->second);
  if (manifest.engine == "onnxruntime") return open_onnxruntime(model, manifest, library);
  if (manifest.engine == "openvino") return open_openvino(model, manifest);
  throw Failure("this program does not run the engine '" + manifest.engine + "'", "", "onnxruntime, openvino",
                "make the bundle with --engine onnxruntime or --engine openvino");
}

}  // namespace edgekit
