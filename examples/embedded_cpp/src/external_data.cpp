#include "external_data.h"

#include <fstream>
#include <map>
#include <string_view>
#include <utility>
#include <vector>

#include "failure.h"
#include "files.h"

namespace fs = std::filesystem;

namespace edgekit {
namespace {

// Messages of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto that lead to a tensor's "location".
enum class Message { model, graph, training, function, node, attribute, sparse, tensor, entry, key, value };

const std::map<std::pair<Message, std::uint64_t>, Message> kFields{
    {{Message::model, 7}, Message::graph},       {{Message::model, 20}, Message::training},
    {{Message::model, 25}, Message::function},   {{Message::graph, 1}, Message::node},
    {{Message::graph, 5}, Message::tensor},      {{Message::graph, 15}, Message::sparse},
    {{Message::training, 1}, Message::graph},    {{Message::training, 2}, Message::graph},
    {{Message::function, 7}, Message::node},     {{Message::function, 11}, Message::attribute},
    {{Message::node, 5}, Message::attribute},    {{Message::attribute, 5}, Message::tensor},
    {{Message::attribute, 6}, Message::graph},   {{Message::attribute, 10}, Message::tensor},
    {{Message::attribute, 11}, Message::graph},  {{Message::attribute, 22}, Message::sparse},
    {{Message::attribute, 23}, Message::sparse}, {{Message::sparse, 1}, Message::tensor},
    {{Message::sparse, 2}, Message::tensor},     {{Message::tensor, 13}, Message::entry},
    {{Message::entry, 1}, Message::key},         {{Message::entry, 2}, Message::value}};

struct Broken {
  const char* why;
};

// The variable-length integer at the start of a message, which is shortened by it.
std::uint64_t varint(std::string_view& data) {
  std::uint64_t value = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    if (data.empty()) throw Broken{"it is cut off"};
    const auto byte = static_cast<unsigned char>(data.front());
    data.remove_prefix(1);
    value |= static_cast<std::uint64_t>(byte & 0x7f) << shift;
    if (byte < 0x80) return value;
  }
  throw Broken{"a number in it is too long"};
}

std::string_view taken(std::string_view& data, std::uint64_t size) {
  if (size > data.size()) throw Broken{"it is cut off"};
  const std::string_view part = data.substr(0, static_cast<std::size_t>(size));
  data.remove_prefix(part.size());
  return part;
}

using Piece = std::pair<Message, std::string_view>;

// The fields of a message that lead on; the others are skipped (https://protobuf.dev/programming-guides/encoding).
std::vector<Piece> children(const Piece& parent) {
  std::vector<Piece> found;
  std::string_view data = parent.second;
  while (!data.empty()) {
    const std::uint64_t tag = varint(data);
    switch (tag & 7) {
      case 0: varint(data); break;
      case 1: taken(data, 8); break;
      case 5: taken(data, 4); break;
      case 2: {
        const std::string_view part = taken(data, varint(data));
        const auto child = kFields.find({parent.first, tag >> 3});
        if (child != kFields.end()) found.emplace_back(child->second, part);
        break;
      }
      default: throw Broken{"a field of unknown kind"};
    }
  }
  return found;
}

std::set<std::string> locations(std::string_view model) {
  std::set<std::string> found;
  std::vector<Piece> todo{{Message::model, model}};
  while (!todo.empty()) {
    const Piece piece = todo.back();
    todo.pop_back();
    bool located = false;
    std::vector<std::string_view> values;
    for (const Piece& child : children(piece)) {
      if (child.first == Message::key) {
        located = located || child.second == "location";
      } else if (child.first == Message::value) {
        values.push_back(child.second);
      } else {
        todo.push_back(child);
      }
    }
    if (located) found.insert(values.begin(), values.end());
  }
  return found;
}

}  // namespace

std::set<std::string> external_files(const fs::path& model) {
  const std::string data = read_file(model);
  try {
    if (data.empty()) throw Broken{"it is empty"};
    return locations(data);
  } catch (const Broken& broken) {
    throw Failure(model.string() + ": not an ONNX file", broken.why, "", kAgain);
  }
}

}  // namespace edgekit
