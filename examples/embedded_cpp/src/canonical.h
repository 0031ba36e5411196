// JSON as Python's json.dumps(value, sort_keys=True, separators=(",", ":")) writes it: a bundle's id is its hash.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace edgekit {

// Parses JSON; throws Failure for text that is none, and for lists in lists without end.
nlohmann::json parse_json(const std::string& text, const std::string& where);

std::string canonical(const nlohmann::json& value);

// A float as Python's repr() writes it: the shortest digits that read back as the same number.
std::string python_repr(double value);

}  // namespace edgekit
