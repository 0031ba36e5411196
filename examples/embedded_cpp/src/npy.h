// One array as numpy stores it: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
#pragma once

#include <string>
#include <string_view>

#include "tensor.h"

namespace edgekit {

// Reads the bytes of a .npy file; throws Failure where they are not an array of numbers.
Tensor parse_npy(std::string_view bytes, const std::string& where);

// Magic, version and header of a .npy file, before the tensor's own bytes.
std::string npy_header(const Tensor& tensor);

}  // namespace edgekit
