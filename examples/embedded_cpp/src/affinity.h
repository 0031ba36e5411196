// CPUs that a bundle is to run on: an option of every engine, which the kernel takes and no engine sees.
#pragma once

#include "manifest.h"

namespace edgekit {

inline constexpr const char* kCpus = "cpus";

// Keeps this thread, and every thread that is started from now on, on CPUs such as "0,4-7". What it was allowed before is
// narrowed and never widened; where CPUs are missing, the others are taken and stderr says so. Throws Failure for text
// that is no list of CPUs.
void stay_on(const Option& cpus);

}  // namespace edgekit
