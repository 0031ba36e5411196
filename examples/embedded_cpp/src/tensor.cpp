#include "tensor.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "failure.h"

namespace edgekit {
namespace {

struct Known {
  Type type;
  const char* name;
  std::size_t size;
};

constexpr std::array<Known, 12> kKnown{{{Type::boolean, "bool", 1},
                                        {Type::int8, "int8", 1},
                                        {Type::int16, "int16", 2},
                                        {Type::int32, "int32", 4},
                                        {Type::int64, "int64", 8},
                                        {Type::uint8, "uint8", 1},
                                        {Type::uint16, "uint16", 2},
                                        {Type::uint32, "uint32", 4},
                                        {Type::uint64, "uint64", 8},
                                        {Type::float16, "float16", 2},
                                        {Type::float32, "float32", 4},
                                        {Type::float64, "float64", 8}}};

const Known& known(Type type) { return kKnown[static_cast<std::size_t>(type)]; }

template <typename T>
std::vector<double> cast(const Tensor& tensor) {
  std::vector<double> values(tensor.bytes.size() / sizeof(T));
  for (std::size_t i = 0; i < values.size(); ++i) {
    T value;
    std::memcpy(&value, tensor.bytes.data() + i * sizeof(T), sizeof(T));
    values[i] = static_cast<double>(value);
  }
  return values;
}

// IEEE 754 half precision: 1 bit of sign, 5 of exponent, 10 of fraction.
double half(std::uint16_t bits) {
  const int exponent = (bits >> 10) & 0x1f;
  const double fraction = bits & 0x3ff;
  const double sign = (bits & 0x8000) != 0 ? -1.0 : 1.0;
  if (exponent == 0x1f) return fraction != 0 ? NAN : sign * INFINITY;
  return sign * (exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25));
}

std::vector<double> halves(const Tensor& tensor) {
  std::vector<double> values(tensor.bytes.size() / 2);
  for (std::size_t i = 0; i < values.size(); ++i) {
    std::uint16_t bits;
    std::memcpy(&bits, tensor.bytes.data() + i * 2, 2);
    values[i] = half(bits);
  }
  return values;
}

std::string text_of(const std::vector<Spec>& specs) {
  std::string text;
  for (const Spec& spec : specs) text += (text.empty() ? "" : "; ") + text_of(spec);
  return text;
}

bool agrees(const Spec& declared, const Spec& actual, bool loose) {
  if (declared.type != actual.type || declared.shape.size() != actual.shape.size()) return false;
  for (std::size_t i = 0; i < declared.shape.size(); ++i) {
    const std::int64_t said = declared.shape[i], is = actual.shape[i];
    if (is != kOpen && said != is && !(loose && said == kOpen)) return false;
  }
  return true;
}

}  // namespace

const char* name_of(Type type) { return known(type).name; }

std::size_t size_of(Type type) { return known(type).size; }

Type type_named(const std::string& name, const std::string& where) {
  for (const Known& one : kKnown) {
    if (name == one.name) return one.type;
  }
  throw Failure(where + ": unknown element type", name, "bool, int8 to uint64, float16, float32, float64", kAgain);
}

std::size_t count_of(const Shape& shape) {
  std::size_t count = 1;
  for (const std::int64_t size : shape) count *= static_cast<std::size_t>(size);
  return count;
}

std::string text_of(const Shape& shape) {
  std::string text;
  for (const std::int64_t size : shape) text += (text.empty() ? "" : ", ") + (size == kOpen ? "any" : std::to_string(size));
  return "[" + text + "]";
}

std::string text_of(const Spec& spec) { return spec.name + ": " + name_of(spec.type) + text_of(spec.shape); }

std::vector<double> as_doubles(const Tensor& tensor) {
  switch (tensor.type) {
    case Type::boolean:
    case Type::uint8: return cast<std::uint8_t>(tensor);
    case Type::int8: return cast<std::int8_t>(tensor);
    case Type::int16: return cast<std::int16_t>(tensor);
    case Type::int32: return cast<std::int32_t>(tensor);
    case Type::int64: return cast<std::int64_t>(tensor);
    case Type::uint16: return cast<std::uint16_t>(tensor);
    case Type::uint32: return cast<std::uint32_t>(tensor);
    case Type::uint64: return cast<std::uint64_t>(tensor);
    case Type::float16: return halves(tensor);
    case Type::float32: return cast<float>(tensor);
    case Type::float64: return cast<double>(tensor);
  }
  throw Failure("an element type without a meaning");
}

bool fits(const Shape& shape, const Shape& spec) {
  return shape.size() == spec.size() &&
         std::equal(shape.begin(), shape.end(), spec.begin(),
                    [](std::int64_t size, std::int64_t dim) { return dim == kOpen ? size > 0 : size == dim; });
}

Tensor rows(const Tensor& tensor, std::int64_t start, std::int64_t count) {
  Tensor part{tensor.type, tensor.shape, {}};
  part.shape.at(0) = count;
  const std::size_t row = tensor.bytes.size() / static_cast<std::size_t>(tensor.shape.at(0));
  part.bytes.resize(row * static_cast<std::size_t>(count));
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t from = std::min(start + i, tensor.shape[0] - 1);
    std::memcpy(part.bytes.data() + row * static_cast<std::size_t>(i),
                tensor.bytes.data() + row * static_cast<std::size_t>(from), row);
  }
  return part;
}

void check_feeds(const Tensors& feeds, const std::vector<Spec>& inputs) {
  for (const auto& [name, tensor] : feeds) {
    const bool asked = std::any_of(inputs.begin(), inputs.end(), [&](const Spec& spec) { return spec.name == name; });
    if (!asked) throw Failure("unknown input '" + name + "'", text_of(tensor.shape), text_of(inputs));
  }
  for (const Spec& spec : inputs) {
    const auto found = feeds.find(spec.name);
    if (found == feeds.end()) throw Failure("input '" + spec.name + "' is missing", "", text_of(inputs));
    const Tensor& tensor = found->second;
    if (tensor.type != spec.type || !fits(tensor.shape, spec.shape)) {
      throw Failure("input '" + spec.name + "' has the wrong type or shape", name_of(tensor.type) + text_of(tensor.shape),
                    text_of(spec));
    }
  }
}

void match_specs(const std::string& kind, const std::vector<Spec>& declared, const std::vector<Spec>& actual) {
  bool same = declared.size() == actual.size();
  for (const Spec& said : declared) {
    same = same && std::any_of(actual.begin(), actual.end(), [&](const Spec& is) {
             return is.name == said.name && agrees(said, is, kind == "output");
           });
  }
  if (!same) {
    throw Failure("the model's " + kind + "s are not those that the manifest declares", text_of(actual),
                  text_of(declared), kAgain);
  }
}

}  // namespace edgekit
