// Loads and stores of several neighbouring elements: 8, 16 or 32 bytes.
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

template <class T, int width>
struct Vector {
  T x[width];
};

// `count` of 32 bits.
template <int count>
struct Words {
  uint32_t w[count];
};
template <class T, int width>
using WordsOf = Words<int(sizeof(T)) * width / 4>;

// Load from an address that is a multiple of 16, or of 8 if the size is no multiple of 16. The
// instructions name global memory, as the compiler cannot see that a number is a global address.
template <int count>
LRFUSED_HD Words<count> load(uint64_t address) {
  Words<count> v;
#if defined(__CUDA_ARCH__)
  static_assert(count % 2 == 0, "multiples of 8 bytes");
  if constexpr (count % 4 != 0) {
    LRFUSED_UNROLLED
    for (int i = 0; i < count; i += 2)
      asm volatile("ld.global.v2.u32 {%0, %1}, [%2];"
                   : "=r"(v.w[i]), "=r"(v.w[i + 1])
                   : "l"(address + 4 * i));
  } else {
    LRFUSED_UNROLLED
    for (int i = 0; i < count; i += 4)
      asm volatile("ld.global.v4.u32 {%0, %1, %2, %3}, [%4];"
                   : "=r"(v.w[i]), "=r"(v.w[i + 1]), "=r"(v.w[i + 2]), "=r"(v.w[i + 3])
                   : "l"(address + 4 * i));
  }
#else
  memcpy(&v, reinterpret_cast<const void*>(address), sizeof(v));
#endif
  return v;
}

template <int count>
LRFUSED_HD void store(uint64_t address, const Words<count>& v) {
#if defined(__CUDA_ARCH__)
  static_assert(count == 2 || count == 4, "8 bytes or 16");
  if constexpr (count == 2)
    asm volatile("st.global.v2.u32 [%0], {%1, %2};"
                 :
                 : "l"(address), "r"(v.w[0]), "r"(v.w[1])
                 : "memory");
  else
    asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};"
                 :
                 : "l"(address), "r"(v.w[0]), "r"(v.w[1]), "r"(v.w[2]), "r"(v.w[3])
                 : "memory");
#else
  memcpy(reinterpret_cast<void*>(address), &v, sizeof(v));
#endif
}

// Return `count` words, beginning `shift` bytes after the beginning of left; right follows left.
// Indices are constants, as a register has no address.
template <int count>
LRFUSED_HD Words<count> join(const Words<count>& left, const Words<count>& right, int64_t shift) {
  uint32_t w[2 * count];
  LRFUSED_UNROLLED
  for (int i = 0; i < count; ++i) {
    w[i] = left.w[i];
    w[count + i] = right.w[i];
  }
  if constexpr (count == 4) {
    LRFUSED_UNROLLED
    for (int i = 0; i < 6; ++i) w[i] = shift & 8 ? w[i + 2] : w[i];
  }
  LRFUSED_UNROLLED
  for (int i = 0; i <= count; ++i) w[i] = shift & 4 ? w[i + 1] : w[i];
  Words<count> joined;
  LRFUSED_UNROLLED
  for (int i = 0; i < count; ++i) joined.w[i] = shift & 2 ? (w[i] >> 16) | (w[i + 1] << 16) : w[i];
  return joined;
}

template <class T, int width>
LRFUSED_HD Vector<T, width> elements(const WordsOf<T, width>& w) {
  return bit_cast<Vector<T, width>>(w);
}
template <class T, int width>
LRFUSED_HD WordsOf<T, width> words(const Vector<T, width>& v) {
  return bit_cast<WordsOf<T, width>>(v);
}

// Load one element from a multiple of its size.
template <class T>
LRFUSED_HD T load_one(uint64_t address) {
#if defined(__CUDA_ARCH__)
  if constexpr (sizeof(T) == 2) {
    uint16_t bits;
    asm volatile("ld.global.u16 %0, [%1];" : "=h"(bits) : "l"(address));
    return bit_cast<T>(bits);
  } else if constexpr (sizeof(T) == 4) {
    uint32_t bits;
    asm volatile("ld.global.u32 %0, [%1];" : "=r"(bits) : "l"(address));
    return bit_cast<T>(bits);
  } else {
    uint64_t bits;
    asm volatile("ld.global.u64 %0, [%1];" : "=l"(bits) : "l"(address));
    return bit_cast<T>(bits);
  }
#else
  T x;
  memcpy(&x, reinterpret_cast<const void*>(address), sizeof(x));
  return x;
#endif
}

}  // namespace lrfused::cuda
