// rn, fma: every rounding the step makes, written once for the host and the device.
//
// A tensor's elements are stored as T and computed in opmath_t<T>. `rn<T>(x)` is x rounded once to
// T's precision, still held in opmath. The translation units that include this header are compiled
// with contraction off, so a product and a sum are fused only in `fma`.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#define LRFUSED_HD __host__ __device__ __forceinline__
#else
#define LRFUSED_HD inline __attribute__((always_inline))
#endif

namespace lrfused {

// 16-bit storage types as plain bits: this header includes neither torch nor CUDA.
struct bfloat16 {
  uint16_t bits;
};
struct float16 {
  uint16_t bits;
};
// A bfloat16 held as a float, so that two neighbours need no shuffle: cpu/pair.h. The low half of a
// NaN must be 0, as it is in NaNs of bfloat16 and of a CPU's arithmetic.
struct wide_bfloat16 {
  uint32_t bits;
};

template <class T>
struct opmath {
  using type = float;
};
template <>
struct opmath<double> {
  using type = double;
};
template <class T>
using opmath_t = typename opmath<T>::type;

template <class To, class From>
LRFUSED_HD To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From), "bit_cast keeps the size");
  To to;
  memcpy(&to, &from, sizeof(To));
  return to;
}

LRFUSED_HD float widen(float x) { return x; }
LRFUSED_HD double widen(double x) { return x; }
LRFUSED_HD float widen(bfloat16 x) { return bit_cast<float>(uint32_t(x.bits) << 16); }
LRFUSED_HD float widen(wide_bfloat16 x) { return bit_cast<float>(x.bits); }
LRFUSED_HD float widen(float16 x) {
#if defined(__CUDA_ARCH__)
  float wide;
  asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(x.bits));
  return wide;
#else
  const uint32_t magnitude = x.bits & 0x7fffu;
  const uint32_t sign = (x.bits & 0x8000u) << 16;
  // Rebias the exponent by 127 - 15 = 112; infinities and NaNs (0x7c00 and up) by twice that.
  const uint32_t rebias = magnitude >= 0x7c00u ? 224u << 23 : 112u << 23;
  const uint32_t normal = (magnitude << 13) + rebias;
  const uint32_t subnormal = bit_cast<uint32_t>(float(int32_t(magnitude)) * 0x1p-24f);
  return bit_cast<float>(sign | (magnitude < 0x0400u ? subnormal : normal));
#endif
}

// Round to nearest, ties to even; a NaN becomes a canonical quiet one.
template <class T>
LRFUSED_HD T narrow(opmath_t<T> x);
template <>
LRFUSED_HD float narrow<float>(float x) {
  return x;
}
template <>
LRFUSED_HD double narrow<double>(double x) {
  return x;
}
template <>
LRFUSED_HD bfloat16 narrow<bfloat16>(float x) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  uint32_t pair;  // two are narrowed faster than one
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(0.0f), "f"(x));
  return {uint16_t(pair)};
#else
  const uint32_t bits = bit_cast<uint32_t>(x);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  return {uint16_t((bits & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : rounded)};
#endif
}
template <>
LRFUSED_HD wide_bfloat16 narrow<wide_bfloat16>(float x) {
  const uint32_t bits = bit_cast<uint32_t>(x);
  return {(bits + 0x7fffu + ((bits >> 16) & 1u)) & 0xffff0000u};
}
template <>
LRFUSED_HD float16 narrow<float16>(float x) {
#if defined(__CUDA_ARCH__)
  float16 narrowed;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(narrowed.bits) : "f"(x));
  return narrowed;
#else
  const uint32_t bits = bit_cast<uint32_t>(x);
  const uint32_t magnitude = bits & 0x7fffffffu;
  const uint32_t normal = (magnitude + 0x0fffu + ((magnitude >> 13) & 1u) - (112u << 23)) >> 13;
  // Below 2^-14, adding 0.5 aligns the last place with 2^-24, float16's subnormal unit.
  const uint32_t subnormal =
      bit_cast<uint32_t>(bit_cast<float>(magnitude) + 0.5f) - bit_cast<uint32_t>(0.5f);
  uint32_t half = magnitude < 0x38800000u ? subnormal : normal;
  half = magnitude >= 0x477ff000u ? 0x7c00u : half;
  half = magnitude > 0x7f800000u ? 0x7e00u : half;
  return {uint16_t(half | ((bits >> 16) & 0x8000u))};
#endif
}

template <class T>
LRFUSED_HD opmath_t<T> rn(opmath_t<T> x) {
  return widen(narrow<T>(x));
}

// Store an x that was rounded to T before.
template <class T>
LRFUSED_HD T pack(opmath_t<T> x) {
  return narrow<T>(x);
}
template <>
LRFUSED_HD bfloat16 pack<bfloat16>(float x) {
  return {uint16_t(bit_cast<uint32_t>(x) >> 16)};
}
template <>
LRFUSED_HD wide_bfloat16 pack<wide_bfloat16>(float x) {
  return {bit_cast<uint32_t>(x)};
}

// a * b + c, rounded once where UseFma, else twice (a CPU on which torch itself does not fuse).
template <bool UseFma>
LRFUSED_HD float fma(float a, float b, float c) {
#if defined(__CUDA_ARCH__)
  return __fmaf_rn(a, b, c);
#else
  return UseFma ? std::fma(a, b, c) : a * b + c;
#endif
}
template <bool UseFma>
LRFUSED_HD double fma(double a, double b, double c) {
#if defined(__CUDA_ARCH__)
  return __fma_rn(a, b, c);
#else
  return UseFma ? std::fma(a, b, c) : a * b + c;
#endif
}

}  // namespace lrfused
