#include "sha256.h"

#include <check.h>

#include <fstream>
#include <vector>

#include "failure.h"

namespace fs = std::filesystem;

namespace edgekit {
namespace {

std::string finished(lzma_check_state& state) {
  lzma_sha256_finish(&state);
  std::string text;
  for (int i = 0; i < 32; ++i) {
    const unsigned byte = state.buffer.u8[i];
    text += "0123456789abcdef"[byte >> 4];
    text += "0123456789abcdef"[byte & 15];
  }
  return text;
}

void update(lzma_check_state& state, const char* bytes, std::size_t size) {
  lzma_sha256_update(reinterpret_cast<const std::uint8_t*>(bytes), size, &state);
}

}  // namespace

std::string sha256_of(const std::string& bytes) {
  lzma_check_state state;
  lzma_sha256_init(&state);
  update(state, bytes.data(), bytes.size());
  return finished(state);
}

std::string sha256_of_file(const fs::path& file) {
  std::ifstream stream(file, std::ios::binary);
  std::vector<char> block(1 << 20);
  lzma_check_state state;
  lzma_sha256_init(&state);
  while (stream) {
    stream.read(block.data(), static_cast<std::streamsize>(block.size()));
    update(state, block.data(), static_cast<std::size_t>(stream.gcount()));
  }
  if (!stream.eof()) throw Failure(file.string() + ": cannot be read", "", "", "check the file and its rights");
  return finished(state);
}

}  // namespace edgekit
