#include "npz.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <fstream>
#include <system_error>

#include "failure.h"
#include "npy.h"

namespace fs = std::filesystem;

namespace edgekit {
namespace {

// Records of https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT: sizes and signatures.
constexpr std::size_t kEndSize = 22, kCentralSize = 46, kLocalSize = 30, kLongestComment = 65535;
constexpr std::uint32_t kEnd = 0x06054b50, kCentral = 0x02014b50, kLocal = 0x04034b50, kBeyond = 0xffffffff;
constexpr const char* kSuffix = ".npy";

std::uint32_t number(std::string_view bytes, std::size_t at, std::size_t size) {
  std::uint32_t value = 0;
  for (std::size_t i = 0; i < size; ++i) value |= static_cast<std::uint32_t>(static_cast<unsigned char>(bytes[at + i])) << (8 * i);
  return value;
}

void append(std::string& bytes, std::uint32_t value, int size) {
  for (int i = 0; i < size; ++i) bytes += static_cast<char>(value >> (8 * i) & 0xff);
}

std::uint32_t crc32(std::string_view bytes, std::uint32_t before = 0) {
  static const auto table = [] {
    std::array<std::uint32_t, 256> made{};
    for (std::uint32_t i = 0; i < 256; ++i) {
      made[i] = i;
      for (int bit = 0; bit < 8; ++bit) made[i] = (made[i] >> 1) ^ ((made[i] & 1) != 0 ? 0xedb88320u : 0u);
    }
    return made;
  }();
  std::uint32_t crc = ~before;
  for (const char c : bytes) crc = (crc >> 8) ^ table[(crc ^ static_cast<unsigned char>(c)) & 0xff];
  return ~crc;
}

struct Entry {
  std::string name;  // without .npy
  std::uint32_t crc, size, offset;
};

class Archive {
 public:
  explicit Archive(const fs::path& file) : where_(file.string()), stream_(file, std::ios::binary) {
    std::error_code problem;
    size_ = fs::file_size(file, problem);
    if (problem || !stream_) throw Failure(where_ + ": cannot be read", problem.message(), "", "check the path");
  }

  // The arrays it lists.
  std::vector<Entry> entries() {
    const std::size_t tail_size = std::min<std::size_t>(size_, kEndSize + kLongestComment);
    const std::string tail = bytes(size_ - tail_size, tail_size);
    const std::size_t end = tail.rfind(std::string("PK\5\6", 4));
    if (end == std::string::npos || tail.size() - end < kEndSize || number(tail, end, 4) != kEnd) refuse("no end of an archive");
    const std::uint32_t count = number(tail, end + 10, 2), size = number(tail, end + 12, 4), offset = number(tail, end + 16, 4);
    if (count == 0xffff || offset == kBeyond) refuse("larger than 4 GiB, which is not read here");
    const std::string directory = bytes(offset, size);
    std::vector<Entry> found;
    for (std::size_t at = 0, i = 0; i < count; ++i) found.push_back(entry(directory, at));
    return found;
  }

  Tensor array(const Entry& entry) {
    const std::string where = where_ + ": array '" + entry.name + "'";
    const std::string local = bytes(entry.offset, kLocalSize);
    if (number(local, 0, 4) != kLocal) refuse("an array that is not where it should be");
    const std::uint64_t start = std::uint64_t{entry.offset} + kLocalSize + number(local, 26, 2) + number(local, 28, 2);
    const std::string data = bytes(start, entry.size);
    if (crc32(data) != entry.crc) throw Failure(where + ": is damaged", "another checksum than was written", "", kAgain);
    return parse_npy(data, where);
  }

 private:
  [[noreturn]] void refuse(const std::string& found) const {
    throw Failure(where_ + ": not an .npz file that is read here", found, "arrays as numpy.savez writes them");
  }

  std::string bytes(std::uint64_t offset, std::uint64_t size) {
    if (offset > size_ || size > size_ - offset) refuse("it is cut off");
    std::string found(static_cast<std::size_t>(size), '\0');
    stream_.seekg(static_cast<std::streamoff>(offset));
    if (!stream_.read(found.data(), static_cast<std::streamsize>(size))) refuse("it cannot be read");
    return found;
  }

  Entry entry(const std::string& directory, std::size_t& at) const {
    if (directory.size() - at < kCentralSize || number(directory, at, 4) != kCentral) refuse("a damaged list of arrays");
    const std::uint32_t name = number(directory, at + 28, 2), extra = number(directory, at + 30, 2);
    const std::size_t length = kCentralSize + name + extra + number(directory, at + 32, 2);
    if (directory.size() - at < length) refuse("a damaged list of arrays");
    Entry found{directory.substr(at + kCentralSize, name), number(directory, at + 16, 4), number(directory, at + 24, 4),
                number(directory, at + 42, 4)};
    const bool stored = number(directory, at + 10, 2) == 0 && number(directory, at + 20, 4) == found.size;
    if (!stored || (number(directory, at + 8, 2) & 1) != 0) refuse("'" + found.name + "' is compressed or encrypted");
    if (found.size == kBeyond || found.offset == kBeyond) refuse("larger than 4 GiB, which is not read here");
    const std::size_t bare = found.name.size() - std::min(found.name.size(), std::strlen(kSuffix));
    if (found.name.substr(bare) != kSuffix) refuse("'" + found.name + "' in it is no array");
    found.name.resize(bare);
    at += length;
    return found;
  }

  std::string where_;
  std::ifstream stream_;
  std::uint64_t size_ = 0;
};

struct Written {
  std::string local, central;
};

// The two records of an array that starts at an offset.
Written records(const std::string& name, const std::string& header, const Tensor& tensor, std::uint32_t offset) {
  const std::string_view data(reinterpret_cast<const char*>(tensor.bytes.data()), tensor.bytes.size());
  const auto size = static_cast<std::uint32_t>(header.size() + data.size());
  std::string common;
  append(common, 20, 2);       // version needed
  append(common, 0x800, 2);    // names are UTF-8
  append(common, 0, 2);        // stored
  append(common, 0x210000, 4); // 1980-01-01
  append(common, crc32(data, crc32(header)), 4);
  append(common, size, 4);
  append(common, size, 4);
  append(common, static_cast<std::uint32_t>(name.size()), 2);
  append(common, 0, 2);  // nothing extra
  Written written;
  append(written.local, kLocal, 4);
  written.local += common + name;
  append(written.central, kCentral, 4);
  append(written.central, 20, 2);  // version made by
  written.central += common;
  append(written.central, 0, 2);   // no comment
  append(written.central, 0, 4);   // disk and internal attributes
  append(written.central, 0, 4);   // external attributes
  append(written.central, offset, 4);
  written.central += name;
  return written;
}

}  // namespace

Tensors read_npz(const fs::path& file, const std::vector<std::string>& names) {
  Archive archive(file);
  Tensors arrays;
  for (const Entry& entry : archive.entries()) {
    const bool asked = names.empty() || std::find(names.begin(), names.end(), entry.name) != names.end();
    if (asked && !arrays.emplace(entry.name, archive.array(entry)).second) {
      throw Failure(file.string() + ": two arrays in it have one name", "'" + entry.name + "'", "", kAgain);
    }
  }
  for (const std::string& name : names) {
    if (arrays.count(name) == 0) throw Failure(file.string() + ": an array is missing", "'" + name + "'", "", kAgain);
  }
  return arrays;
}

void write_npz(const fs::path& file, const Tensors& arrays) {
  const fs::path partial = file.string() + ".partial";
  std::ofstream stream(partial, std::ios::binary);
  std::string directory;
  std::uint64_t offset = 0;
  for (const auto& [name, tensor] : arrays) {
    const std::string header = npy_header(tensor);
    if (offset + header.size() + tensor.bytes.size() + kLongestComment > kBeyond) throw Failure(file.string() + ": over 4 GiB");
    const Written written = records(name + kSuffix, header, tensor, static_cast<std::uint32_t>(offset));
    stream << written.local << header;
    stream.write(reinterpret_cast<const char*>(tensor.bytes.data()), static_cast<std::streamsize>(tensor.bytes.size()));
    offset += written.local.size() + header.size() + tensor.bytes.size();
    directory += written.central;
  }
  std::string end;
  append(end, kEnd, 4);
  append(end, 0, 4);  // disks
  for (int i = 0; i < 2; ++i) append(end, static_cast<std::uint32_t>(arrays.size()), 2);
  append(end, static_cast<std::uint32_t>(directory.size()), 4);
  append(end, static_cast<std::uint32_t>(offset), 4);
  append(end, 0, 2);  // no comment
  stream << directory << end;
  stream.close();
  std::error_code problem;
  if (stream) fs::rename(partial, file, problem);
  if (!stream || problem) {
    std::error_code ignored;
    fs::remove(partial, ignored);
    throw Failure(file.string() + ": cannot be written", problem ? problem.message() : "", "", "check the folder and its room");
  }
}

}  // namespace edgekit
