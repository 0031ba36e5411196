// A bundle's folder, checked before an engine sees any of it.
#pragma once

#include <filesystem>

#include "manifest.h"

namespace edgekit {

// Reads the manifest and checks every file's sha256, that all names stay inside, and that nothing else lies there;
// throws Failure where something is wrong.
Manifest check_bundle(const std::filesystem::path& folder);

}  // namespace edgekit
