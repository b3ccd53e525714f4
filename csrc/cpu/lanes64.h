// bfloat16 and float16 sixty-four at a time. Included by avx512.cpp and avx512bf16.cpp alone.
//
// A rounding takes some instructions, each of which waits for the one before it. Four vectors are
// rounded side by side, so that the CPU has others to do meanwhile.
#pragma once

namespace lrfused {

// Of bfloat16, a and b are the even and the odd ones of the first thirty-two: a 32-bit word has one
// of each, as in pair.h. Of float16 they are in order.
struct float32x64 {
  __m512 a, b, c, d;
};
struct bfloat16x64 {
  __m512i ab, cd;
};
struct float16x64 {
  __m256i a, b, c, d;
};
template <>
struct opmath<bfloat16x64> {
  using type = float32x64;
};
template <>
struct opmath<float16x64> {
  using type = float32x64;
};

LRFUSED_HD float32x64 operator*(float32x64 x, float32x64 y) {
  return {_mm512_mul_ps(x.a, y.a), _mm512_mul_ps(x.b, y.b), _mm512_mul_ps(x.c, y.c),
          _mm512_mul_ps(x.d, y.d)};
}
template <bool UseFma>
LRFUSED_HD __m512 fma(__m512 x, __m512 y, __m512 z) {
  return UseFma ? _mm512_fmadd_ps(x, y, z) : _mm512_add_ps(_mm512_mul_ps(x, y), z);
}
template <bool UseFma>
LRFUSED_HD float32x64 fma(float32x64 x, float32x64 y, float32x64 z) {
  return {fma<UseFma>(x.a, y.a, z.a), fma<UseFma>(x.b, y.b, z.b), fma<UseFma>(x.c, y.c, z.c),
          fma<UseFma>(x.d, y.d, z.d)};
}
// As narrow<wide_bfloat16>, without clearing the low halves.
LRFUSED_HD __m512i round_high(__m512 x) {
  const __m512i bits = _mm512_castps_si512(x);
  const __mmask16 odd = _mm512_test_epi32_mask(bits, _mm512_set1_epi32(0x10000));
  const __m512i up = _mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff));
  return _mm512_mask_add_epi32(up, odd, up, _mm512_set1_epi32(1));
}
LRFUSED_HD __m512 high(__m512i x) {
  return _mm512_castsi512_ps(_mm512_and_si512(x, _mm512_set1_epi32(int(0xffff0000))));
}
LRFUSED_HD __m512i merge_high(__m512i even, __m512i odd) {
  return _mm512_mask_blend_epi16(0xaaaaaaaa, _mm512_srli_epi32(even, 16), odd);
}
LRFUSED_HD __m512i merge_high(__m512 even, __m512 odd) {
  return merge_high(_mm512_castps_si512(even), _mm512_castps_si512(odd));
}

LRFUSED_HD float32x64 widen(bfloat16x64 x) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(x.ab, 16)), high(x.ab),
          _mm512_castsi512_ps(_mm512_slli_epi32(x.cd, 16)), high(x.cd)};
}
template <>
LRFUSED_HD float32x64 rn<bfloat16x64>(float32x64 x) {
  return {high(round_high(x.a)), high(round_high(x.b)), high(round_high(x.c)),
          high(round_high(x.d))};
}
template <>
LRFUSED_HD bfloat16x64 narrow<bfloat16x64>(float32x64 x) {
  return {merge_high(round_high(x.a), round_high(x.b)),
          merge_high(round_high(x.c), round_high(x.d))};
}
template <>
LRFUSED_HD bfloat16x64 pack<bfloat16x64>(float32x64 x) {
  return {merge_high(x.a, x.b), merge_high(x.c, x.d)};
}

LRFUSED_HD __m256i to_half(__m512 x) { return _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT); }
LRFUSED_HD __m256i to_half_without_payload(__m512 x) {
  const __m512i bits = _mm512_castps_si512(x);
  const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  const int and_then_or = 0xea;
  return to_half(_mm512_castsi512_ps(_mm512_mask_ternarylogic_epi32(
      bits, nan, _mm512_set1_epi32(int(0x80000000)), _mm512_set1_epi32(0x7fc00000), and_then_or)));
}
LRFUSED_HD float32x64 widen(float16x64 x) {
  return {_mm512_cvtph_ps(x.a), _mm512_cvtph_ps(x.b), _mm512_cvtph_ps(x.c), _mm512_cvtph_ps(x.d)};
}
// A NaN keeps its payload here; the store drops it.
template <>
LRFUSED_HD float32x64 rn<float16x64>(float32x64 x) {
  return widen(float16x64{to_half(x.a), to_half(x.b), to_half(x.c), to_half(x.d)});
}
template <>
LRFUSED_HD float16x64 narrow<float16x64>(float32x64 x) {
  return {to_half_without_payload(x.a), to_half_without_payload(x.b), to_half_without_payload(x.c),
          to_half_without_payload(x.d)};
}

// Of the elements that a vector, or some vectors, would hold: all, or the first `count`.
struct Every {};
struct Some {
  int64_t count;
};
LRFUSED_HD uint64_t first(Some some) {
  if (some.count >= 64) return ~uint64_t(0);
  return some.count <= 0 ? 0 : (uint64_t(1) << some.count) - 1;
}
// The same, counted from `element` on.
LRFUSED_HD Every from(Every every, int) { return every; }
LRFUSED_HD Some from(Some some, int element) { return {some.count - element}; }

LRFUSED_HD void load(const bfloat16* p, Every, bfloat16x64& x) {
  x = {_mm512_loadu_si512(p), _mm512_loadu_si512(p + 32)};
}
LRFUSED_HD void load(const bfloat16* p, Some some, bfloat16x64& x) {
  x = {_mm512_maskz_loadu_epi16(__mmask32(first(some)), p),
       _mm512_maskz_loadu_epi16(__mmask32(first(from(some, 32))), p + 32)};
}
LRFUSED_HD void store(bfloat16* p, Every, bfloat16x64 x) {
  _mm512_storeu_si512(p, x.ab);
  _mm512_storeu_si512(p + 32, x.cd);
}
LRFUSED_HD void store(bfloat16* p, Some some, bfloat16x64 x) {
  _mm512_mask_storeu_epi16(p, __mmask32(first(some)), x.ab);
  _mm512_mask_storeu_epi16(p + 32, __mmask32(first(from(some, 32))), x.cd);
}

LRFUSED_HD __m256i load16(const float16* p, Every) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
LRFUSED_HD __m256i load16(const float16* p, Some some) {
  return _mm256_maskz_loadu_epi16(__mmask16(first(some)), p);
}
LRFUSED_HD void store16(float16* p, Every, __m256i x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), x);
}
LRFUSED_HD void store16(float16* p, Some some, __m256i x) {
  _mm256_mask_storeu_epi16(p, __mmask16(first(some)), x);
}
LRFUSED_HD __m512 load16(const float* p, Every) { return _mm512_loadu_ps(p); }
LRFUSED_HD __m512 load16(const float* p, Some some) {
  return _mm512_maskz_loadu_ps(__mmask16(first(some)), p);
}
LRFUSED_HD void store16(float* p, Every, __m512 x) { _mm512_storeu_ps(p, x); }
LRFUSED_HD void store16(float* p, Some some, __m512 x) {
  _mm512_mask_storeu_ps(p, __mmask16(first(some)), x);
}
template <class Which>
LRFUSED_HD void load(const float16* p, Which which, float16x64& x) {
  x = {load16(p, which), load16(p + 16, from(which, 16)), load16(p + 32, from(which, 32)),
       load16(p + 48, from(which, 48))};
}
template <class Which>
LRFUSED_HD void store(float16* p, Which which, float16x64 x) {
  store16(p, which, x.a);
  store16(p + 16, from(which, 16), x.b);
  store16(p + 32, from(which, 32), x.c);
  store16(p + 48, from(which, 48), x.d);
}

}  // namespace lrfused
