// A model opened on an engine.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "manifest.h"
#include "tensor.h"

namespace edgekit {

// Used by one thread at a time; outputs belong to the caller.
class Session {
 public:
  Session() = default;
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
  virtual ~Session() = default;

  // Runs one batch; throws Failure where a feed does not fit or the engine fails.
  virtual Tensors run(const Tensors& feeds) = 0;

  // The engine's build, e.g. "1.31.1".
  virtual std::string version() const = 0;
};

// Opens a model in ONNX Runtime, whose library is found at run time.
std::unique_ptr<Session> open_onnxruntime(const std::filesystem::path& model, const Manifest& manifest,
                                          const std::string& library);

// Opens a model in OpenVINO; a program built without it says so.
std::unique_ptr<Session> open_openvino(const std::filesystem::path& model, const Manifest& manifest);

// Opens a checked bundle's model on the engine that its manifest names.
std::unique_ptr<Session> open_session(const std::filesystem::path& bundle, const Manifest& manifest,
                                      const std::string& onnxruntime_library);

}  // namespace edgekit
