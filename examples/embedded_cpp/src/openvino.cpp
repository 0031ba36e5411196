// OpenVINO through its C++ API; built where its cmake files are.
#include <openvino/openvino.hpp>

#include <algorithm>
#include <cstring>
#include <thread>

#include "affinity.h"
#include "engine.h"
#include "failure.h"
#include "paths.h"

namespace fs = std::filesystem;

namespace edgekit {
namespace {

constexpr const char* kPrecision = "INFERENCE_PRECISION_HINT";

const std::map<Type, ov::element::Type> kTypes{
    {Type::boolean, ov::element::boolean}, {Type::int8, ov::element::i8},     {Type::int16, ov::element::i16},
    {Type::int32, ov::element::i32},       {Type::int64, ov::element::i64},   {Type::uint8, ov::element::u8},
    {Type::uint16, ov::element::u16},      {Type::uint32, ov::element::u32},  {Type::uint64, ov::element::u64},
    {Type::float16, ov::element::f16},     {Type::float32, ov::element::f32}, {Type::float64, ov::element::f64}};

Type type_of(const ov::element::Type& type) {
  for (const auto& [ours, theirs] : kTypes) {
    if (theirs == type) return ours;
  }
  throw Failure("the model has an element type that is not read here", type.to_string());
}

// Runs what calls the engine; its exceptions become failures.
template <typename Call>
auto translated(const std::string& doing, const Call& call) {
  try {
    return call();
  } catch (const ov::Exception& problem) {
    throw Failure("openvino could not " + doing, problem.what());
  }
}

ov::Any value_of(const Option& option) {
  if (const auto* const number = std::get_if<std::int64_t>(&option)) return static_cast<int>(*number);
  return std::visit([](const auto& value) { return ov::Any(value); }, option);
}

// The properties that the options are; on a CPU with bf16 or f16 the engine's own default loses digits unasked.
ov::AnyMap properties_of(const std::map<std::string, Option>& options, const fs::path& model) {
  static const std::vector<std::string> known{"PERFORMANCE_HINT",  "NUM_STREAMS",            "INFERENCE_NUM_THREADS",
                                              "ENABLE_CPU_PINNING", "ENABLE_HYPER_THREADING", "SCHEDULING_CORE_TYPE",   kPrecision};
  ov::AnyMap properties{{kPrecision, std::string("f32")}};
  for (const auto& [key, value] : options) {
    if (key == "device" || key == kCpus) continue;
    if (key == "CACHE_DIR" && std::holds_alternative<std::string>(value)) {
      check_name(std::get<std::string>(value), model);
      properties[key] = (model.parent_path() / std::get<std::string>(value)).string();
    } else if (std::find(known.begin(), known.end(), key) != known.end()) {
      properties[key] = value_of(value);
    } else {
      throw Failure("the bundle has an option that is not taken here", key, "device, CACHE_DIR and OpenVINO's properties");
    }
  }
  return properties;
}

std::string device_of(const std::map<std::string, Option>& options) {
  const auto found = options.find("device");
  if (found == options.end()) return "CPU";
  if (const auto* const name = std::get_if<std::string>(&found->second)) return *name;
  throw Failure("the bundle has an option that is not taken here", "device that is no text", "CPU, or another device's name");
}

// Whether a number that the engine took is smaller because this machine has no more cores.
bool limited(const std::string& key, const std::string& asked, const std::string& found) {
  const bool counted = key == "INFERENCE_NUM_THREADS" || key == "NUM_STREAMS";
  const auto whole = [](const std::string& text) {
    return !text.empty() && text.size() < 10 && text.find_first_not_of("0123456789") == std::string::npos;
  };
  if (!counted || !whole(asked) || !whole(found)) return key == "ENABLE_HYPER_THREADING" && found == "NO";
  return std::stoi(found) < std::stoi(asked) && std::stoi(found) <= static_cast<int>(std::thread::hardware_concurrency());
}

// Refuses what the engine silently changed, except what this machine has too few cores for.
void check_taken(ov::CompiledModel& compiled, const ov::AnyMap& properties) {
  for (const auto& [key, value] : properties) {
    if (key == "CACHE_DIR") continue;
    const std::string asked = value.as<std::string>(), found = compiled.get_property(key).as<std::string>();
    if (asked != found && !limited(key, asked, found)) throw Failure("openvino did not take " + key + " = " + asked, key + " = " + found);
  }
}

class OpenVinoSession final : public Session {
 public:
  OpenVinoSession(const fs::path& model, const Manifest& manifest) : manifest_(manifest), model_(model.filename().string()) {
    const std::string where = device_of(manifest.options);
    const ov::AnyMap properties = properties_of(manifest.options, model);
    translated("open " + model_, [&] {
      compiled_ = core_.compile_model(model.string(), where, properties);
      check_taken(compiled_, properties);
      match_specs("input", manifest.inputs, specs(compiled_.inputs(), manifest.inputs));
      match_specs("output", manifest.outputs, specs(compiled_.outputs(), manifest.outputs));
      request_ = compiled_.create_infer_request();
    });
  }

  Tensors run(const Tensors& feeds) override {
    check_feeds(feeds, manifest_.inputs);
    return translated("run " + model_, [&] {
      for (const auto& [name, tensor] : feeds) {
        const ov::Shape shape(tensor.shape.begin(), tensor.shape.end());
        void* const bytes = const_cast<std::byte*>(tensor.bytes.data());  // read only
        request_.set_tensor(name, ov::Tensor(kTypes.at(tensor.type), shape, bytes));
      }
      request_.infer();
      Tensors outputs;
      for (const Spec& spec : manifest_.outputs) outputs.emplace(spec.name, copied(request_.get_tensor(spec.name)));
      return outputs;
    });
  }

  std::string version() const override {
    const std::string build = ov::get_openvino_version().buildNumber;  // 2026.4.1-20000-abcdef
    return build.substr(0, build.find('-'));
  }

 private:
  static Tensor copied(const ov::Tensor& from) {
    const ov::Shape shape = from.get_shape();
    Tensor tensor{type_of(from.get_element_type()), Shape(shape.begin(), shape.end()), {}};
    tensor.bytes.resize(from.get_byte_size());
    if (!tensor.bytes.empty()) std::memcpy(tensor.bytes.data(), from.data(), tensor.bytes.size());
    return tensor;
  }

  // Of a port's several names, the declared one.
  static std::vector<Spec> specs(const std::vector<ov::Output<const ov::Node>>& ports, const std::vector<Spec>& declared) {
    std::vector<Spec> found;
    for (const auto& port : ports) {
      std::string name = port.get_any_name();
      for (const Spec& spec : declared) {
        if (port.get_names().count(spec.name) != 0) name = spec.name;
      }
      Spec spec{name, type_of(port.get_element_type()), {}};
      for (const ov::Dimension& dim : port.get_partial_shape()) {
        spec.shape.push_back(dim.is_static() ? dim.get_length() : kOpen);
      }
      found.push_back(std::move(spec));
    }
    return found;
  }

  Manifest manifest_;
  std::string model_;
  ov::Core core_;
  ov::CompiledModel compiled_;
  ov::InferRequest request_;
};

}  // namespace

std::unique_ptr<Session> open_openvino(const fs::path& model, const Manifest& manifest) {
  return std::make_unique<OpenVinoSession>(model, manifest);
}

}  // namespace edgekit
