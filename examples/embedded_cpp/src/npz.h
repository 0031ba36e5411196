// numpy's .npz files: stored (not compressed) arrays of numbers, and no more memory than the file accounts for.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "tensor.h"

namespace edgekit {

// Reads arrays by name, all of them where none is named; throws Failure where the file is cut, changed or made to
// mislead, an array is compressed, of Python objects or of another byte order, or a name is not in it.
Tensors read_npz(const std::filesystem::path& file, const std::vector<std::string>& names = {});

// Writes arrays that numpy.load reads; whole or not at all.
void write_npz(const std::filesystem::path& file, const Tensors& arrays);

}  // namespace edgekit
