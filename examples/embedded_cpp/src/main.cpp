// Opens a bundle of EdgeKit's, checks its golden samples on this machine, and infers.
#include <cstdio>
#include <exception>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "bundle.h"
#include "engine.h"
#include "failure.h"
#include "golden.h"
#include "npz.h"
#include "preprocess.h"

namespace fs = std::filesystem;
using namespace edgekit;

namespace {

constexpr int kGood = 0, kError = 1, kUsage = 2, kMissed = 3;  // as EdgeKit's own commands

constexpr const char* kHelp =
    "usage: edgekit_embedded verify BUNDLE [--json] [--onnxruntime FILE]\n"
    "       edgekit_embedded run BUNDLE IN.npz OUT.npz [--raw] [--onnxruntime FILE]\n"
    "\n"
    "verify checks every file of BUNDLE by its sha256 and runs its golden samples\n"
    "here; it exits with 1 when a file was changed, with 3 when the bundle computes\n"
    "something else here. run takes samples by input name, any number on axis 0,\n"
    "preprocesses them as the bundle says, and writes the outputs by name.\n"
    "\n"
    "--raw               IN.npz holds model tensors: skip the preprocessing\n"
    "--onnxruntime FILE  ONNX Runtime's shared library; default:\n"
    "                    $EDGEKIT_ONNXRUNTIME, else libonnxruntime.so.1\n";
constexpr std::size_t kColumns = 80;

struct Arguments {
  std::vector<std::string> words;
  std::string onnxruntime = "libonnxruntime.so.1";
  bool json = false;
  bool raw = false;
  bool help = false;
};

// What was read from files may hold anything: no bytes that a terminal obeys, and none that are not UTF-8.
std::string printable(std::string text) {
  for (std::size_t at = 0; at < text.size(); ++at) {
    const auto lead = static_cast<unsigned char>(text[at]);
    const std::size_t more = lead < 0xc2 ? 0 : lead < 0xe0 ? 1 : lead < 0xf0 ? 2 : lead < 0xf5 ? 3 : 0;
    std::size_t found = 0;
    while (found < more && at + found + 1 < text.size() && (text[at + found + 1] & 0xc0) == 0x80) ++found;
    const bool control = (lead < 0x20 && lead != '\n') || lead == 0x7f || (lead >= 0x80 && more == 0);
    if (control || found < more) {
      text[at] = '?';
    } else {
      at += more;
    }
  }
  return text;
}

// A line on lines of a narrow terminal, indented.
std::string wrapped(const std::string& text) {
  std::string lines = " ";
  std::size_t width = 1;
  std::istringstream words(text);
  for (std::string word; words >> word;) {
    if (width + 1 + word.size() > kColumns && width > 4) {
      lines += "\n   ";
      width = 3;
    }
    lines += " " + word;
    width += 1 + word.size();
  }
  return lines;
}

std::optional<Arguments> parsed(int count, char** values) {
  Arguments arguments;
  if (const char* const named = std::getenv("EDGEKIT_ONNXRUNTIME")) arguments.onnxruntime = named;
  for (int i = 1; i < count; ++i) {
    const std::string word = values[i];
    if (word == "--json") {
      arguments.json = true;
    } else if (word == "--raw") {
      arguments.raw = true;
    } else if (word == "--help" || word == "-h") {
      arguments.help = true;
    } else if (word == "--onnxruntime" && i + 1 < count) {
      arguments.onnxruntime = values[++i];
    } else if (word.rfind("--", 0) == 0) {
      return std::nullopt;
    } else {
      arguments.words.push_back(word);
    }
  }
  return arguments;
}

int verify_bundle(const fs::path& bundle, const Arguments& arguments) {
  const Manifest manifest = check_bundle(bundle);
  const auto session = open_session(bundle, manifest, arguments.onnxruntime);
  const Verification found = verify(bundle, manifest, *session);
  if (arguments.json) {
    const nlohmann::json own = found.own_db ? nlohmann::json(*found.own_db) : nlohmann::json();
    const nlohmann::json told{{"samples", found.samples},   {"reference_db", found.reference_db},
                              {"floor_db", found.floor_db}, {"own_db", own},
                              {"passed", found.passed},     {"messages", {found.reference_message, found.own_message}}};
    std::printf("%s\n", told.dump(2).c_str());
  } else {
    std::printf("%s: %s\n%s\n%s\n", bundle.c_str(), found.passed ? "verified" : "NOT VERIFIED",
                wrapped(found.reference_message).c_str(), wrapped(found.own_message).c_str());
  }
  return found.passed ? kGood : kMissed;
}

int run_bundle(const fs::path& bundle, const fs::path& source, const fs::path& sink, const Arguments& arguments) {
  const Manifest manifest = check_bundle(bundle);
  Tensors feeds = read_npz(source);
  if (feeds.size() == 1 && manifest.inputs.size() == 1) {  // a single input may go by any name
    Tensor only = std::move(feeds.begin()->second);
    feeds.clear();
    feeds.emplace(manifest.inputs[0].name, std::move(only));
  }
  if (manifest.preprocessing && !arguments.raw) {
    const auto given = feeds.find(manifest.preprocessing->input);
    if (given == feeds.end()) throw Failure("input '" + manifest.preprocessing->input + "' is missing", source.string());
    given->second = preprocess(given->second, *manifest.preprocessing);
  }
  const auto session = open_session(bundle, manifest, arguments.onnxruntime);
  const Tensors outputs = run_batched(*session, feeds, manifest);
  write_npz(sink, outputs);
  for (const auto& [name, tensor] : outputs) {
    std::printf("%s: %s%s\n", name.c_str(), name_of(tensor.type), text_of(tensor.shape).c_str());
  }
  return kGood;
}

}  // namespace

int main(int count, char** values) {
  const std::optional<Arguments> arguments = parsed(count, values);
  if (arguments && arguments->help) {
    std::fputs(kHelp, stdout);
    return kGood;
  }
  const std::size_t words = arguments ? arguments->words.size() : 0;
  try {
    if (words == 2 && arguments->words[0] == "verify") return verify_bundle(arguments->words[1], *arguments);
    if (words == 4 && arguments->words[0] == "run") {
      return run_bundle(arguments->words[1], arguments->words[2], arguments->words[3], *arguments);
    }
  } catch (const std::exception& problem) {  // nothing is above main to tell it to
    std::fprintf(stderr, "error: %s\n", printable(problem.what()).c_str());
    return kError;
  }
  std::fputs(kHelp, stderr);
  return kUsage;
}
