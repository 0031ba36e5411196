#include "numbers.h"

#include <algorithm>
#include <cmath>

namespace edgekit {

double snr_db(const Tensor& reference, const Tensor& actual) {
  const std::vector<double> signal = as_doubles(reference), other = as_doubles(actual);
  if (std::equal(signal.begin(), signal.end(), other.begin(), other.end())) return kBestDb;
  double top = 0.0;
  for (std::size_t i = 0; i < signal.size(); ++i) {
    if (!std::isfinite(signal[i]) || !std::isfinite(other[i])) return kWorstDb;
    top = std::max({top, std::abs(signal[i]), std::abs(other[i])});
  }
  // Scaled by the largest value, so that squares neither overflow nor vanish.
  double signal_power = 0.0, noise_power = 0.0;
  for (std::size_t i = 0; i < signal.size(); ++i) {
    const double scaled = signal[i] / top, noise = scaled - other[i] / top;
    signal_power += scaled * scaled;
    noise_power += noise * noise;
  }
  if (signal_power == 0.0) return kWorstDb;
  if (noise_power == 0.0) return kBestDb;
  return std::clamp(10.0 * std::log10(signal_power / noise_power), kWorstDb, kBestDb);
}

}  // namespace edgekit
