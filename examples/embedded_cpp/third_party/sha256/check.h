// What sha256.c needs of liblzma's header of the same name; written for this folder, and in the public domain as well.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
  union {
    uint8_t u8[64];
    uint32_t u32[16];
    uint64_t u64[8];
  } buffer;
  struct {
    struct {
      uint32_t state[8];
      uint64_t size;
    } sha256;
  } state;
} lzma_check_state;

void lzma_sha256_init(lzma_check_state* check);
void lzma_sha256_update(const uint8_t* buf, size_t size, lzma_check_state* check);
void lzma_sha256_finish(lzma_check_state* check);

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define conv32be(x) __builtin_bswap32(x)
#define conv64be(x) __builtin_bswap64(x)
#else
#define conv32be(x) (x)
#define conv64be(x) (x)
#endif

#ifdef __cplusplus
}
#endif
