// Squares of numbers of up to 32 bits, with all partial sums in registers. Included by avx512.cpp
// alone.
#pragma once

namespace lrfused {

// Eight elements, widened; of bfloat16 sixteen.
template <class T>
struct Eights {
  static constexpr int count = 1;
  __m256 a;
};
template <>
struct Eights<bfloat16> {
  static constexpr int count = 2;
  __m256 a, b;  // the even ones, and the odd ones
};

LRFUSED_HD Eights<float> load_eights(const float* p, Every) { return {_mm256_loadu_ps(p)}; }
LRFUSED_HD Eights<float> load_eights(const float* p, Some some) {
  return {_mm256_maskz_loadu_ps(__mmask8(first(some)), p)};
}
LRFUSED_HD Eights<float16> load_eights(const float16* p, Every) {
  return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}
LRFUSED_HD Eights<float16> load_eights(const float16* p, Some some) {
  return {_mm256_cvtph_ps(_mm_maskz_loadu_epi16(__mmask8(first(some)), p))};
}
LRFUSED_HD __m256 high(__m256i x) {
  return _mm256_castsi256_ps(_mm256_and_si256(x, _mm256_set1_epi32(int(0xffff0000))));
}
LRFUSED_HD Eights<bfloat16> widen_pairs(__m256i x) {
  return {_mm256_castsi256_ps(_mm256_slli_epi32(x, 16)), high(x)};
}
LRFUSED_HD Eights<bfloat16> load_eights(const bfloat16* p, Every) {
  return widen_pairs(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
LRFUSED_HD Eights<bfloat16> load_eights(const bfloat16* p, Some some) {
  return widen_pairs(_mm256_maskz_loadu_epi16(__mmask16(first(some)), p));
}

// Return the product, rounded to R.
template <class R>
LRFUSED_HD __m256 scaled(__m256 scale, __m256 x) {
  const __m256 y = _mm256_mul_ps(scale, x);
  if constexpr (std::is_same_v<R, float>) {
    return y;
  } else if constexpr (std::is_same_v<R, float16>) {
    return _mm256_cvtph_ps(_mm256_cvtps_ph(y, _MM_FROUND_TO_NEAREST_INT));
  } else {  // as round_high
    const __m256i bits = _mm256_castps_si256(y);
    const __mmask8 odd = _mm256_test_epi32_mask(bits, _mm256_set1_epi32(0x10000));
    const __m256i up = _mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff));
    return high(_mm256_mask_add_epi32(up, odd, up, _mm256_set1_epi32(1)));
  }
}
// Keep the elements that are there: a scale that is not finite makes NaNs of the zeros elsewhere.
LRFUSED_HD __m256 only(Every, __m256 x) { return x; }
LRFUSED_HD __m256 only(Some some, __m256 x) {
  return _mm256_maskz_mov_ps(__mmask8(first(some)), x);
}
// Of elements in pairs, those that are even (up = 1) or odd (up = 0).
LRFUSED_HD Every halved(Every every, int) { return every; }
LRFUSED_HD Some halved(Some some, int up) { return {(some.count + up) / 2}; }

namespace avx512 {

template <class T, class R, bool Scale>
struct Squares<T, R, Scale, std::enable_if_t<(sizeof(T) <= 4)>> {
  static void sum(const T* g, int64_t n, double inv_scale, double* sums) {
    constexpr int vectors = kPartialSums / 8, step = Eights<T>::count;
    const __m256 scale = _mm256_set1_ps(static_cast<float>(inv_scale));
    __m512d parts[vectors] = {};
    const auto add = [&](int k, auto which, __m256 x) __attribute__((always_inline)) {
      if (Scale) x = only(which, scaled<R>(scale, x));
      // The square is exact, so that it does not matter whether it is fused.
      const __m512d wide = _mm512_cvtps_pd(x);
      parts[k] = _mm512_fmadd_pd(wide, wide, parts[k]);
    };
    by<kPartialSums>(n, [&](int64_t i, auto which) __attribute__((always_inline)) {
#pragma GCC unroll 16
      for (int k = 0; k < vectors; k += step) {
        const auto these = from(which, 8 * k);
        const Eights<T> x = load_eights(g + i + 8 * k, these);
        if constexpr (step == 1) {
          add(k, these, x.a);
        } else {
          add(k, halved(these, 1), x.a);
          add(k + 1, halved(these, 0), x.b);
        }
      }
    });
    const __m512i low = _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11);
    const __m512i high = _mm512_setr_epi64(4, 12, 5, 13, 6, 14, 7, 15);
    for (int k = 0; k < vectors; k += 2) {
      __m512d a = parts[k], b = parts[k + 1];
      if (step == 2) {
        a = _mm512_permutex2var_pd(parts[k], low, parts[k + 1]);
        b = _mm512_permutex2var_pd(parts[k], high, parts[k + 1]);
      }
      _mm512_storeu_pd(sums + 8 * k, a);
      _mm512_storeu_pd(sums + 8 * k + 8, b);
    }
  }
};

}  // namespace avx512
}  // namespace lrfused
