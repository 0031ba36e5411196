// From raw samples to model tensors: what the manifest says; as edgekit/runtime/preprocessing.py.
#pragma once

#include "manifest.h"
#include "tensor.h"

namespace edgekit {

// Resizes (bilinear, half-pixel centres), scales, normalises and lays out a raw batch, in that order; throws Failure where
// its axes or channels do not fit the settings.
Tensor preprocess(const Tensor& raw, const Preprocessing& settings);

}  // namespace edgekit
