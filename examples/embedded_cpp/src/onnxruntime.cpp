// ONNX Runtime through its C API, of which one symbol is looked up in the shared library.
#include <dlfcn.h>
#include <onnxruntime_c_api.h>

#include <cstdlib>
#include <cstring>
#include <regex>

#include "affinity.h"
#include "engine.h"
#include "failure.h"

namespace fs = std::filesystem;

namespace edgekit {
namespace {

// What ONNX Runtime 1.17 offers is all that is called here; every newer library offers it too.
constexpr std::uint32_t kApiVersion = 17;
constexpr const char* kProvider = "CPUExecutionProvider";

struct Library {
  const OrtApiBase* base;
  const OrtApi* api;
};

// The library stays loaded until the process ends: it has threads of its own.
Library loaded(const std::string& name) {
  setenv("ORT_DISABLE_TELEMETRY", "1", 1);  // read by Microsoft's builds when they are loaded
  void* const handle = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    const char* const why = dlerror();
    throw Failure("ONNX Runtime cannot be loaded", why == nullptr ? name : why, "its libonnxruntime.so",
                  "name it with --onnxruntime FILE; Python's wheel has it at onnxruntime/capi/libonnxruntime.so.<version>");
  }
  void* const symbol = dlsym(handle, "OrtGetApiBase");
  if (symbol == nullptr) throw Failure(name + ": not ONNX Runtime's library", "no OrtGetApiBase in it");
  const auto get_base = reinterpret_cast<const OrtApiBase* (*)()>(symbol);
  const OrtApiBase* const base = get_base();
  const OrtApi* const api = base->GetApi(kApiVersion);
  if (api == nullptr) {
    throw Failure(name + ": this ONNX Runtime is too old", base->GetVersionString(),
                  "1." + std::to_string(kApiVersion) + " or newer");
  }
  return {base, api};
}

template <typename T>
using Owned = std::unique_ptr<T, void (*)(T*)>;

Type type_of(ONNXTensorElementDataType type) {
  switch (type) {
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL: return Type::boolean;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8: return Type::int8;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16: return Type::int16;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32: return Type::int32;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64: return Type::int64;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8: return Type::uint8;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16: return Type::uint16;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32: return Type::uint32;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64: return Type::uint64;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16: return Type::float16;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT: return Type::float32;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE: return Type::float64;
    default: throw Failure("the model has an element type that is not read here", std::to_string(type));
  }
}

ONNXTensorElementDataType code_of(Type type) {
  constexpr ONNXTensorElementDataType kCodes[] = {
      ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL,   ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8,    ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16,
      ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32,  ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64,   ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8,
      ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16, ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32,  ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64,
      ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,  ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE};
  return kCodes[static_cast<std::size_t>(type)];
}

class OnnxRuntimeSession final : public Session {
 public:
  OnnxRuntimeSession(const fs::path& model, const Manifest& manifest, const std::string& library)
      : library_(loaded(library)), api_(*library_.api), inputs_(manifest.inputs), model_(model.filename().string()) {
    OrtEnv* env = nullptr;
    check(api_.CreateEnv(ORT_LOGGING_LEVEL_ERROR, "edgekit", &env), "start");
    env_.reset(env);
    check(api_.DisableTelemetryEvents(env), "switch off telemetry");
    const Owned<OrtSessionOptions> settings = session_options(manifest.options);
    OrtSession* session = nullptr;
    check(api_.CreateSession(env, model.c_str(), settings.get(), &session), "open " + model_);
    session_.reset(session);
    OrtMemoryInfo* memory = nullptr;
    check(api_.CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory), "describe memory");
    memory_.reset(memory);
    match_specs("input", manifest.inputs, specs(&OrtApi::SessionGetInputCount, &OrtApi::SessionGetInputName,
                                                &OrtApi::SessionGetInputTypeInfo));
    match_specs("output", manifest.outputs, specs(&OrtApi::SessionGetOutputCount, &OrtApi::SessionGetOutputName,
                                                  &OrtApi::SessionGetOutputTypeInfo));
    for (const Spec& spec : manifest.outputs) outputs_.push_back(spec.name);
  }

  Tensors run(const Tensors& feeds) override {
    check_feeds(feeds, inputs_);
    std::vector<Owned<OrtValue>> owned;
    std::vector<const char*> names, wanted;
    std::vector<const OrtValue*> values;
    for (const auto& [name, tensor] : feeds) {
      owned.push_back(lent(tensor));
      names.push_back(name.c_str());
      values.push_back(owned.back().get());
    }
    for (const std::string& name : outputs_) wanted.push_back(name.c_str());
    std::vector<OrtValue*> made(wanted.size(), nullptr);
    OrtStatus* const status = api_.Run(session_.get(), nullptr, names.data(), values.data(), values.size(), wanted.data(),
                                       wanted.size(), made.data());
    for (OrtValue* const value : made) owned.emplace_back(value, api_.ReleaseValue);
    check(status, "run " + model_);
    Tensors outputs;
    for (std::size_t i = 0; i < made.size(); ++i) outputs.emplace(outputs_[i], copied(made[i]));
    return outputs;
  }

  std::string version() const override { return library_.base->GetVersionString(); }

 private:
  void check(OrtStatus* status, const std::string& doing) const {
    if (status == nullptr) return;
    const std::string message = api_.GetErrorMessage(status);
    api_.ReleaseStatus(status);
    throw Failure("onnxruntime could not " + doing, message);
  }

  Owned<OrtSessionOptions> session_options(const std::map<std::string, Option>& options) const {
    OrtSessionOptions* made = nullptr;
    check(api_.CreateSessionOptions(&made), "make options");
    Owned<OrtSessionOptions> settings(made, api_.ReleaseSessionOptions);
    check(api_.SetSessionLogSeverityLevel(made, ORT_LOGGING_LEVEL_ERROR), "set the log level");
    for (const auto& [key, value] : options) {
      if (key != kCpus) set(made, key, value);
    }
    return settings;
  }

  void set(OrtSessionOptions* settings, const std::string& key, const Option& value) const {
    static const std::regex other_files("file|path|folder|format|profiling|debug");
    const auto* const number = std::get_if<std::int64_t>(&value);
    const auto* const flag = std::get_if<bool>(&value);
    const std::string doing = "take the option " + key;
    if (key == "intra_op_num_threads" && number != nullptr) {
      check(api_.SetIntraOpNumThreads(settings, static_cast<int>(*number)), doing);
    } else if (key == "inter_op_num_threads" && number != nullptr) {
      check(api_.SetInterOpNumThreads(settings, static_cast<int>(*number)), doing);
    } else if (key == "enable_cpu_mem_arena" && flag != nullptr) {
      check(*flag ? api_.EnableCpuMemArena(settings) : api_.DisableCpuMemArena(settings), doing);
    } else if (key == "enable_mem_pattern" && flag != nullptr) {
      check(*flag ? api_.EnableMemPattern(settings) : api_.DisableMemPattern(settings), doing);
    } else if (key == "provider" && value == Option(std::string(kProvider))) {
      return;  // the library's own default
    } else if (key.find('.') != std::string::npos && !std::regex_search(key, other_files)) {
      check(api_.AddSessionConfigEntry(settings, key.c_str(), text_of(value).c_str()), doing);
    } else {
      throw Failure("the bundle has an option that is not taken here", key + " = " + text_of(value),
                    "provider CPUExecutionProvider, intra_op_num_threads, inter_op_num_threads, enable_cpu_mem_arena, "
                    "enable_mem_pattern, configuration entries about threads and kernels");
    }
  }

  template <typename Count, typename Name, typename Info>
  std::vector<Spec> specs(Count count_of_them, Name name_of_one, Info info_of_one) const {
    OrtAllocator* allocator = nullptr;
    check(api_.GetAllocatorWithDefaultOptions(&allocator), "find its allocator");
    std::size_t count = 0;
    check((api_.*count_of_them)(session_.get(), &count), "count inputs and outputs");
    std::vector<Spec> found;
    for (std::size_t i = 0; i < count; ++i) {
      char* name = nullptr;
      check((api_.*name_of_one)(session_.get(), i, allocator, &name), "name inputs and outputs");
      Spec spec{name, Type::float32, {}};
      check(api_.AllocatorFree(allocator, name), "free memory");
      OrtTypeInfo* info = nullptr;
      check((api_.*info_of_one)(session_.get(), i, &info), "describe inputs and outputs");
      const Owned<OrtTypeInfo> owned(info, api_.ReleaseTypeInfo);
      const OrtTensorTypeAndShapeInfo* tensor = nullptr;
      check(api_.CastTypeInfoToTensorInfo(info, &tensor), "describe inputs and outputs");
      if (tensor == nullptr) throw Failure(model_ + ": '" + spec.name + "' is no tensor");
      describe(tensor, spec.type, spec.shape);
      found.push_back(std::move(spec));
    }
    return found;
  }

  void describe(const OrtTensorTypeAndShapeInfo* info, Type& type, Shape& shape) const {
    ONNXTensorElementDataType code = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
    check(api_.GetTensorElementType(info, &code), "tell a type");
    type = type_of(code);
    std::size_t rank = 0;
    check(api_.GetDimensionsCount(info, &rank), "tell a shape");
    shape.resize(rank);
    check(api_.GetDimensions(info, shape.data(), rank), "tell a shape");  // open ones are -1
  }

  // A view of the tensor's own bytes, which the engine only reads.
  Owned<OrtValue> lent(const Tensor& tensor) const {
    OrtValue* value = nullptr;
    void* const bytes = const_cast<std::byte*>(tensor.bytes.data());
    check(api_.CreateTensorWithDataAsOrtValue(memory_.get(), bytes, tensor.bytes.size(), tensor.shape.data(),
                                              tensor.shape.size(), code_of(tensor.type), &value),
          "take an input");
    return Owned<OrtValue>(value, api_.ReleaseValue);
  }

  Tensor copied(OrtValue* value) const {
    OrtTensorTypeAndShapeInfo* info = nullptr;
    check(api_.GetTensorTypeAndShape(value, &info), "tell an output's shape");
    const Owned<OrtTensorTypeAndShapeInfo> owned(info, api_.ReleaseTensorTypeAndShapeInfo);
    Tensor tensor{Type::float32, {}, {}};
    describe(info, tensor.type, tensor.shape);
    void* bytes = nullptr;
    check(api_.GetTensorMutableData(value, &bytes), "give an output");
    tensor.bytes.resize(count_of(tensor.shape) * size_of(tensor.type));
    if (!tensor.bytes.empty()) std::memcpy(tensor.bytes.data(), bytes, tensor.bytes.size());
    return tensor;
  }

  static std::string text_of(const Option& value) {
    if (const auto* const flag = std::get_if<bool>(&value)) return *flag ? "1" : "0";
    if (const auto* const number = std::get_if<std::int64_t>(&value)) return std::to_string(*number);
    if (const auto* const number = std::get_if<double>(&value)) return std::to_string(*number);
    return std::get<std::string>(value);
  }

  Library library_;
  const OrtApi& api_;
  std::vector<Spec> inputs_;
  std::vector<std::string> outputs_;
  std::string model_;
  Owned<OrtEnv> env_{nullptr, api_.ReleaseEnv};
  Owned<OrtSession> session_{nullptr, api_.ReleaseSession};
  Owned<OrtMemoryInfo> memory_{nullptr, api_.ReleaseMemoryInfo};
};

}  // namespace

std::unique_ptr<Session> open_onnxruntime(const fs::path& model, const Manifest& manifest, const std::string& library) {
  return std::make_unique<OnnxRuntimeSession>(model, manifest, library);
}

}  // namespace edgekit
