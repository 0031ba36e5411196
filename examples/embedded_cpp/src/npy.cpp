#include "npy.h"

#include <cstring>
#include <limits>

#include "failure.h"

namespace edgekit {
namespace {

constexpr std::string_view kMagic = "\x93NUMPY";

struct Header {
  std::string descr;
  bool fortran = false;
  Shape shape;
};

// Reads the one Python dict of a header, of three known keys; anything else is refused.
class HeaderReader {
 public:
  HeaderReader(std::string_view text, const std::string& where) : text_(text), where_(where) {}

  Header read() {
    Header header;
    int keys = 0;
    expect('{');
    while (!accept('}')) {
      const std::string key = quoted();
      expect(':');
      if (key == "descr") {
        header.descr = quoted();
      } else if (key == "fortran_order") {
        header.fortran = boolean();
      } else if (key == "shape") {
        header.shape = tuple();
      } else {
        refuse();
      }
      ++keys;
      accept(',');
    }
    skip();
    if (keys != 3 || header.descr.empty() || !text_.empty()) refuse();
    return header;
  }

 private:
  [[noreturn]] void refuse() const { throw Failure(where_ + ": its header is damaged", "", "as numpy writes it", kAgain); }

  void skip() {
    while (!text_.empty() && (text_.front() == ' ' || text_.front() == '\n')) text_.remove_prefix(1);
  }

  bool accept(char wanted) {
    skip();
    if (text_.empty() || text_.front() != wanted) return false;
    text_.remove_prefix(1);
    return true;
  }

  void expect(char wanted) {
    if (!accept(wanted)) refuse();
  }

  std::string quoted() {
    expect('\'');
    const std::size_t end = text_.find('\'');
    if (end == std::string_view::npos) refuse();
    const std::string word(text_.substr(0, end));
    text_.remove_prefix(end + 1);
    return word;
  }

  bool boolean() {
    skip();
    for (const std::string_view word : {"True", "False"}) {
      if (text_.substr(0, word.size()) == word) {
        text_.remove_prefix(word.size());
        return word == "True";
      }
    }
    refuse();
  }

  Shape tuple() {
    Shape shape;
    expect('(');
    while (!accept(')')) {
      shape.push_back(number());
      accept(',');
    }
    return shape;
  }

  std::int64_t number() {
    skip();
    std::int64_t value = 0;
    std::size_t digits = 0;
    while (digits < text_.size() && text_[digits] >= '0' && text_[digits] <= '9') {
      if (value > std::numeric_limits<std::int64_t>::max() / 10 - 1) refuse();
      value = value * 10 + (text_[digits++] - '0');
    }
    if (digits == 0) refuse();
    text_.remove_prefix(digits);
    return value;
  }

  std::string_view text_;
  const std::string& where_;
};

Type type_of(const std::string& descr, const std::string& where) {
  struct Coded {
    const char* code;
    Type type;
  };
  constexpr Coded kCodes[] = {{"|b1", Type::boolean}, {"|i1", Type::int8},    {"<i2", Type::int16},   {"<i4", Type::int32},
                              {"<i8", Type::int64},   {"|u1", Type::uint8},   {"<u2", Type::uint16},  {"<u4", Type::uint32},
                              {"<u8", Type::uint64},  {"<f2", Type::float16}, {"<f4", Type::float32}, {"<f8", Type::float64}};
  for (const Coded& coded : kCodes) {
    if (descr == coded.code) return coded.type;
  }
  throw Failure(where + ": holds no numbers that are read here", "'" + descr + "'",
                "little-endian integers, floats and booleans; objects are refused, for reading them could run code");
}

const char* code_of(Type type) {
  constexpr const char* kCodes[] = {"|b1", "|i1", "<i2", "<i4", "<i8", "|u1", "<u2", "<u4", "<u8", "<f2", "<f4", "<f8"};
  return kCodes[static_cast<std::size_t>(type)];
}

// Whether the shape's elements take exactly so many bytes; sizes that overflow do not.
bool takes(const Shape& shape, std::size_t item, std::size_t bytes) {
  std::size_t count = item;
  for (const std::int64_t size : shape) {
    if (size == 0) return bytes == 0;
    if (count > bytes / static_cast<std::size_t>(size)) return false;
    count *= static_cast<std::size_t>(size);
  }
  return count == bytes;
}

// From columns first to rows first.
std::vector<std::byte> reordered(std::string_view data, const Shape& shape, std::size_t item) {
  std::vector<std::byte> rows(data.size());
  Shape at(shape.size(), 0);
  for (std::size_t from = 0; from < data.size(); from += item) {
    std::size_t to = 0;
    for (std::size_t axis = 0; axis < shape.size(); ++axis) {
      to = to * static_cast<std::size_t>(shape[axis]) + static_cast<std::size_t>(at[axis]);
    }
    std::memcpy(rows.data() + to * item, data.data() + from, item);
    for (std::size_t axis = 0; axis < shape.size() && ++at[axis] == shape[axis]; ++axis) at[axis] = 0;
  }
  return rows;
}

}  // namespace

Tensor parse_npy(std::string_view bytes, const std::string& where) {
  const bool known = bytes.size() >= 12 && bytes.substr(0, kMagic.size()) == kMagic && (bytes[6] == 1 || bytes[6] == 2);
  if (!known) throw Failure(where + ": not an array of numpy's", "", "format version 1 or 2", kAgain);
  const auto byte = [&](std::size_t at) { return static_cast<std::size_t>(static_cast<unsigned char>(bytes[at])); };
  const bool old = bytes[6] == 1;
  const std::size_t size = byte(8) | byte(9) << 8 | (old ? 0 : byte(10) << 16 | byte(11) << 24);
  const std::size_t start = old ? 10 : 12;
  if (size > bytes.size() - start) throw Failure(where + ": is cut off", "", "", kAgain);
  const Header header = HeaderReader(bytes.substr(start, size), where).read();
  const std::string_view data = bytes.substr(start + size);
  Tensor tensor{type_of(header.descr, where), header.shape, {}};
  const std::size_t item = size_of(tensor.type);
  if (!takes(tensor.shape, item, data.size())) {
    throw Failure(where + ": claims another size than it has", name_of(tensor.type) + text_of(tensor.shape),
                  std::to_string(data.size()) + " bytes are there", kAgain);
  }
  if (header.fortran && tensor.shape.size() > 1) {
    tensor.bytes = reordered(data, tensor.shape, item);
  } else {
    tensor.bytes.resize(data.size());
    if (!data.empty()) std::memcpy(tensor.bytes.data(), data.data(), data.size());
  }
  return tensor;
}

std::string npy_header(const Tensor& tensor) {
  std::string shape;
  for (const std::int64_t size : tensor.shape) shape += std::to_string(size) + ",";
  std::string text = std::string("{'descr': '") + code_of(tensor.type) + "', 'fortran_order': False, 'shape': (" + shape + "), }";
  const std::size_t start = 10;
  text += std::string(64 - (start + text.size() + 1) % 64, ' ') + "\n";
  const std::string size{static_cast<char>(text.size() & 0xff), static_cast<char>(text.size() >> 8)};
  return std::string(kMagic) + std::string{'\1', '\0'} + size + text;
}

}  // namespace edgekit
