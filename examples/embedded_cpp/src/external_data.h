// Where the tensors of an ONNX file lie: an engine would open them wherever a name leads.
#pragma once

#include <filesystem>
#include <set>
#include <string>

namespace edgekit {

// Names of the files in which an ONNX file keeps tensors, as written in it; throws Failure where it is no ONNX file.
std::set<std::string> external_files(const std::filesystem::path& model);

}  // namespace edgekit
