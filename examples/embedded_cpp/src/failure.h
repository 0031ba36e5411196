// What is wrong, in a sentence: the problem, what was found, what is allowed, and how to mend it.
#pragma once

#include <stdexcept>
#include <string>

namespace edgekit {

class Failure : public std::runtime_error {
 public:
  explicit Failure(const std::string& problem, const std::string& found = "", const std::string& allowed = "",
                   const std::string& fix = "")
      : std::runtime_error(problem + line("found:   ", found) + line("allowed: ", allowed) + line("fix:     ", fix)) {}

 private:
  static std::string line(const char* label, const std::string& text) {
    return text.empty() ? "" : std::string("\n  ") + label + text;
  }
};

inline constexpr const char* kAgain = "copy the bundle again, or make it again with `edgekit deploy` or `edgekit export`";

}  // namespace edgekit
