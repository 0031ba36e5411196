#include "preprocess.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "failure.h"

namespace edgekit {
namespace {

struct Batch {
  Shape shape;  // of the axes N, H, W, C
  std::vector<double> values;
};

// Elements between neighbours of an axis.
std::size_t stride_of(const Shape& shape, std::size_t axis) {
  return count_of(Shape(shape.begin() + static_cast<std::ptrdiff_t>(axis) + 1, shape.end()));
}

void refuse(const Preprocessing& settings, const std::string& problem, const std::string& found, const std::string& allowed) {
  throw Failure("input '" + settings.input + "' " + problem, found, allowed);
}

void check(const Tensor& raw, const Preprocessing& settings) {
  const bool any = settings.layout == "any";
  if (raw.bytes.empty()) refuse(settings, "is empty", text_of(raw.shape), "");
  if (!any && raw.shape.size() != settings.layout.size()) {
    refuse(settings, "has the wrong number of axes", text_of(raw.shape), "axes " + settings.layout);
  }
  if (any && (settings.resize || settings.mean.size() > 1 || settings.std.size() > 1)) {
    refuse(settings, "cannot be resized or normalised by channel", "layout any", "NHWC, NCHW, NHW");
  }
}

// The same values with the axes in another order: axis i of the result is axis order[i] of the batch.
Batch transposed(const Batch& batch, const std::vector<std::size_t>& order) {
  Batch moved{{}, std::vector<double>(batch.values.size())};
  std::vector<std::size_t> strides;
  for (const std::size_t axis : order) {
    moved.shape.push_back(batch.shape[axis]);
    strides.push_back(stride_of(batch.shape, axis));
  }
  Shape at(order.size(), 0);
  for (double& value : moved.values) {
    std::size_t from = 0;
    for (std::size_t i = 0; i < at.size(); ++i) from += static_cast<std::size_t>(at[i]) * strides[i];
    value = batch.values[from];
    for (std::size_t i = at.size(); i-- > 0 && ++at[i] == moved.shape[i];) at[i] = 0;
  }
  return moved;
}

// Along one axis; in float32, as numpy does it.
Batch resized(const Batch& batch, std::size_t axis, std::int64_t size) {
  const std::int64_t old = batch.shape[axis];
  if (size == old) return batch;
  Batch made{batch.shape, {}};
  made.shape[axis] = size;
  made.values.resize(count_of(made.shape));
  const std::size_t inner = stride_of(batch.shape, axis), outer = count_of(batch.shape) / inner / static_cast<std::size_t>(old);
  for (std::int64_t i = 0; i < size; ++i) {
    const double ratio = static_cast<double>(old) / static_cast<double>(size);
    const double place = std::max(0.0, (static_cast<double>(i) + 0.5) * ratio - 0.5);
    const auto below = std::min(static_cast<std::int64_t>(place), old - 1), above = std::min(below + 1, old - 1);
    const auto weight = static_cast<float>(place - static_cast<double>(below));
    for (std::size_t o = 0; o < outer; ++o) {
      const double* const from = batch.values.data() + o * static_cast<std::size_t>(old) * inner;
      double* const to = made.values.data() + (o * static_cast<std::size_t>(size) + static_cast<std::size_t>(i)) * inner;
      for (std::size_t k = 0; k < inner; ++k) {
        const auto low = static_cast<float>(from[static_cast<std::size_t>(below) * inner + k]);
        const auto high = static_cast<float>(from[static_cast<std::size_t>(above) * inner + k]);
        to[k] = low + (high - low) * weight;
      }
    }
  }
  return made;
}

double at(const std::vector<double>& values, std::size_t channel) { return values.size() == 1 ? values[0] : values[channel]; }

// (x * scale - mean) / std, as one multiplication and one addition in float32.
Tensor scaled(const Batch& batch, const Preprocessing& settings, std::size_t channels, std::size_t inner) {
  Tensor tensor{Type::float32, batch.shape, std::vector<std::byte>(batch.values.size() * sizeof(float))};
  for (std::size_t i = 0; i < batch.values.size(); ++i) {
    const std::size_t channel = i / inner % channels;
    const auto factor = static_cast<float>(settings.scale / at(settings.std, channel));
    const auto offset = static_cast<float>(-at(settings.mean, channel) / at(settings.std, channel));
    float value = static_cast<float>(batch.values[i] * static_cast<double>(factor));
    value += offset;
    std::memcpy(tensor.bytes.data() + i * sizeof value, &value, sizeof value);
  }
  return tensor;
}

}  // namespace

Tensor preprocess(const Tensor& raw, const Preprocessing& settings) {
  check(raw, settings);
  Batch batch{raw.shape, as_doubles(raw)};
  if (settings.layout == "any") return scaled(batch, settings, 1, 1);
  std::string layout = settings.layout;
  if (layout == "NHW") {
    layout = "NHWC";
    batch.shape.push_back(1);
  }
  const std::size_t height = layout.find('H'), width = layout.find('W'), channels = layout.find('C');
  for (const std::vector<double>* values : {&settings.mean, &settings.std}) {
    const auto found = static_cast<std::size_t>(batch.shape[channels]);
    if (values->size() != 1 && values->size() != found) {
      refuse(settings, "has another number of channels than mean or std", std::to_string(found), std::to_string(values->size()));
    }
  }
  if (settings.resize) {
    batch = resized(batch, height, settings.resize->first);
    batch = resized(batch, width, settings.resize->second);
  }
  std::vector<std::size_t> order;
  for (const char axis : settings.model_layout) order.push_back(layout.find(axis));
  batch = transposed(batch, order);
  const std::size_t channel = settings.model_layout.find('C');
  return scaled(batch, settings, static_cast<std::size_t>(batch.shape[channel]), stride_of(batch.shape, channel));
}

}  // namespace edgekit
