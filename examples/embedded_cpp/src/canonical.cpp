#include "canonical.h"

#include <array>
#include <charconv>
#include <nlohmann/json.hpp>

#include "failure.h"

using Json = nlohmann::json;

namespace edgekit {
namespace {

constexpr int kMostDepth = 64;  // a manifest has five levels

void append(const Json& value, std::string& text) {
  if (value.is_number_float()) {
    text += python_repr(value.get<double>());
  } else if (value.is_object()) {
    text += '{';
    for (const auto& [key, item] : value.items()) {  // sorted: the library keeps objects in a std::map
      if (text.back() != '{') text += ',';
      text += Json(key).dump(-1, ' ', true) + ':';
      append(item, text);
    }
    text += '}';
  } else if (value.is_array()) {
    text += '[';
    for (std::size_t i = 0; i < value.size(); ++i) {
      if (i != 0) text += ',';
      append(value[i], text);
    }
    text += ']';
  } else {
    text += value.dump(-1, ' ', true);  // ASCII only, as Python does by default
  }
}

}  // namespace

Json parse_json(const std::string& text, const std::string& where) {
  const auto shallow = [&](int depth, Json::parse_event_t, const Json&) {
    if (depth > kMostDepth) throw Failure(where + ": not JSON of ours", "lists in lists without end", "", kAgain);
    return true;
  };
  try {
    return Json::parse(text, shallow);
  } catch (const Json::exception& problem) {
    throw Failure(where + ": not JSON", problem.what(), "", kAgain);
  }
}

std::string canonical(const Json& value) {
  std::string text;
  append(value, text);
  return text;
}

std::string python_repr(double value) {
  std::array<char, 64> buffer;
  const auto written = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value, std::chars_format::scientific);
  const std::string text(buffer.data(), written.ptr);  // -d.ddde±xx
  const std::size_t e = text.find('e');
  const int exponent = std::stoi(text.substr(e + 1));
  if (exponent < -4 || exponent >= 16) return text;
  const std::string sign = text[0] == '-' ? "-" : "";
  std::string digits = text.substr(sign.size(), 1);
  if (e > sign.size() + 2) digits += text.substr(sign.size() + 2, e - sign.size() - 2);
  if (exponent < 0) return sign + "0." + std::string(static_cast<std::size_t>(-exponent - 1), '0') + digits;
  const std::size_t whole = static_cast<std::size_t>(exponent) + 1;
  if (digits.size() <= whole) return sign + digits + std::string(whole - digits.size(), '0') + ".0";
  return sign + digits.substr(0, whole) + "." + digits.substr(whole);
}

}  // namespace edgekit
