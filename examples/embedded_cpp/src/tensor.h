// Arrays of numbers, and what a model says of its inputs and outputs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace edgekit {

enum class Type { boolean, int8, int16, int32, int64, uint8, uint16, uint32, uint64, float16, float32, float64 };

using Shape = std::vector<std::int64_t>;

inline constexpr std::int64_t kOpen = -1;  // a dimension of any size

struct Spec {
  std::string name;
  Type type;
  Shape shape;
};

struct Tensor {
  Type type;
  Shape shape;                   // rows first, as numpy's C order
  std::vector<std::byte> bytes;  // in this machine's byte order
};

using Tensors = std::map<std::string, Tensor>;

// numpy's name of a type, e.g. "float32".
const char* name_of(Type type);

// The type of that name; throws Failure where there is none.
Type type_named(const std::string& name, const std::string& where);

std::size_t size_of(Type type);

// Elements of a shape without open dimensions; 1 for none.
std::size_t count_of(const Shape& shape);

// "[16, 3, 32, 32]".
std::string text_of(const Shape& shape);

// "input: float32[batch, 3]".
std::string text_of(const Spec& spec);

// Every element as a double.
std::vector<double> as_doubles(const Tensor& tensor);

// Whether a shape is one that a spec takes; an open dimension takes any size above zero.
bool fits(const Shape& shape, const Shape& spec);

// Rows [start, start + count) of the first axis; past the last row it is repeated.
Tensor rows(const Tensor& tensor, std::int64_t start, std::int64_t count);

// Throws Failure where a name, a type or a shape of the feeds is not what a model takes.
void check_feeds(const Tensors& feeds, const std::vector<Spec>& inputs);

// Throws Failure where the engine's own specs are not those that the manifest declares.
void match_specs(const std::string& kind, const std::vector<Spec>& declared, const std::vector<Spec>& actual);

}  // namespace edgekit
