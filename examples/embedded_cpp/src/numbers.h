// How close two arrays are; as edgekit/runtime/numbers.py.
#pragma once

#include "tensor.h"

namespace edgekit {

inline constexpr double kBestDb = 300.0;    // stands for identical
inline constexpr double kWorstDb = -300.0;  // stands for NaN or infinity in the output

// 10 log10(sum of reference squared / sum of (reference - actual) squared), in dB between -300 and 300; both of one shape.
double snr_db(const Tensor& reference, const Tensor& actual);

}  // namespace edgekit
