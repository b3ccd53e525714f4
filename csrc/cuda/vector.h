// 16 bytes at a time.
#pragma once

#include <cstdint>
#include <cstring>

#include "items.h"

#if defined(__CUDACC__)
#define LRFUSED_UNROLLED _Pragma("unroll")
#define LRFUSED_ROLLED _Pragma("unroll 1")
#else
#define LRFUSED_UNROLLED
#define LRFUSED_ROLLED
#endif

namespace lrfused::cuda {

template <class T>
struct Vector {
  T x[kVector / sizeof(T)];
};

struct Words {
  uint32_t w[4];
};

// The address is a multiple of 16. Where the table gives addresses as numbers the compiler cannot
// see that they are global.
LRFUSED_HD Words load(uint64_t address) {
  Words v;
#if defined(__CUDA_ARCH__)
  asm volatile("ld.global.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.w[0]), "=r"(v.w[1]), "=r"(v.w[2]), "=r"(v.w[3])
               : "l"(address));
#else
  memcpy(&v, reinterpret_cast<const void*>(address), sizeof(v));
#endif
  return v;
}

LRFUSED_HD void store(uint64_t address, const Words& v) {
#if defined(__CUDA_ARCH__)
  asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};"
               :
               : "l"(address), "r"(v.w[0]), "r"(v.w[1]), "r"(v.w[2]), "r"(v.w[3])
               : "memory");
#else
  memcpy(reinterpret_cast<void*>(address), &v, sizeof(v));
#endif
}

// 16 bytes from `shift` bytes behind the first of left, which right follows. Indices are constants:
// a register has no address.
LRFUSED_HD Words join(const Words& left, const Words& right, int64_t shift) {
  uint32_t w[8] = {left.w[0],  left.w[1],  left.w[2],  left.w[3],
                   right.w[0], right.w[1], right.w[2], right.w[3]};
  for (int i = 0; i < 6; ++i) w[i] = shift & 8 ? w[i + 2] : w[i];
  for (int i = 0; i < 5; ++i) w[i] = shift & 4 ? w[i + 1] : w[i];
  for (int i = 0; i < 4; ++i) w[i] = shift & 2 ? (w[i] >> 16) | (w[i + 1] << 16) : w[i];
  return {{w[0], w[1], w[2], w[3]}};
}

template <class T>
LRFUSED_HD Vector<T> elements(const Words& w) {
  return bit_cast<Vector<T>>(w);
}
template <class T>
LRFUSED_HD Words words(const Vector<T>& v) {
  return bit_cast<Words>(v);
}

}  // namespace lrfused::cuda
