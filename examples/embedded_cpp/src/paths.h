// File names that others wrote: none may leave its folder, by its text or through a link.
#pragma once

#include <filesystem>
#include <string>

namespace edgekit {

// Throws Failure for a name that is absolute, has a drive, or climbs with "..".
void check_name(const std::string& name, const std::filesystem::path& where);

// The file of that name in the folder; throws Failure where the name leads out of it, or no file is there.
std::filesystem::path file_inside(const std::string& name, const std::filesystem::path& folder,
                                  const std::filesystem::path& where);

}  // namespace edgekit
