// float16 by the CPU's own conversions, eight at a time: in integer arithmetic it takes ten times
// as long. Included by avx2.cpp alone.
#pragma once

namespace lrfused {

struct float8 {
  __m256 lanes;
};
struct float16x8 {
  __m128i bits;
};
template <>
struct opmath<float16x8> {
  using type = float8;
};

LRFUSED_HD float8 operator*(float8 a, float8 b) { return {_mm256_mul_ps(a.lanes, b.lanes)}; }
LRFUSED_HD float8 widen(float16x8 x) { return {_mm256_cvtph_ps(x.bits)}; }
// A NaN keeps its payload here; the store drops it.
template <>
LRFUSED_HD float8 rn<float16x8>(float8 x) {
  return widen(float16x8{_mm256_cvtps_ph(x.lanes, _MM_FROUND_TO_NEAREST_INT)});
}
template <>
LRFUSED_HD float16x8 narrow<float16x8>(float8 x) {
  const __m128i half = _mm256_cvtps_ph(x.lanes, _MM_FROUND_TO_NEAREST_INT);
  const __m128i sign = _mm_set1_epi16(short(0x8000));
  const __m128i nan = _mm_cmpgt_epi16(_mm_andnot_si128(sign, half), _mm_set1_epi16(0x7c00));
  const __m128i quiet = _mm_or_si128(_mm_and_si128(half, sign), _mm_set1_epi16(0x7e00));
  return {_mm_blendv_epi8(half, quiet, nan)};
}
template <bool UseFma>
LRFUSED_HD float8 fma(float8 a, float8 b, float8 c) {
  return {UseFma ? _mm256_fmadd_ps(a.lanes, b.lanes, c.lanes)
                 : _mm256_add_ps(_mm256_mul_ps(a.lanes, b.lanes), c.lanes)};
}

LRFUSED_HD float16x8 load(const float16* x) {
  return {_mm_loadu_si128(reinterpret_cast<const __m128i*>(x))};
}
LRFUSED_HD void store(float16* x, float16x8 v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(x), v.bits);
}
LRFUSED_HD float8 all(float x) { return {_mm256_set1_ps(x)}; }
LRFUSED_HD Hyper<float8> spread(const Hyper<float>& h) {
  return {all(h.grad_factor),         all(h.weight_decay), all(h.momentum),
          all(h.one_minus_dampening), all(h.minus_lr),     all(h.clip)};
}

namespace avx2 {

template <>
struct Loop<float16> {
  template <bool Scale, bool Decay, MomentumMode Mode, bool Nesterov, bool UseFma>
  static void update(void* param, const void* grad, void* buffer, int64_t n, const Hypers& hypers) {
    float16* p = static_cast<float16*>(param);
    const float16* g = static_cast<const float16*>(grad);
    float16* m = static_cast<float16*>(buffer);
    const Hyper<float8> h = spread(hypers.fp32);
    const auto eight = [&](float16* p, const float16* g, float16* m) {
      float16x8 ps = load(p), ms{};
      if (Mode == MomentumMode::next) ms = load(m);
      sgd<float16x8, Scale, Decay, Mode, Nesterov, UseFma, Scale>(ps, load(g), ms, h);
      store(p, ps);
      if (Mode != MomentumMode::none) store(m, ms);
    };
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) eight(p + i, g + i, Mode == MomentumMode::none ? nullptr : m + i);
    if (i == n) return;
    float16 ps[8] = {}, gs[8] = {}, ms[8] = {};
    const size_t bytes = (n - i) * sizeof(float16);
    std::memcpy(ps, p + i, bytes);
    std::memcpy(gs, g + i, bytes);
    if (Mode == MomentumMode::next) std::memcpy(ms, m + i, bytes);
    eight(ps, gs, ms);
    std::memcpy(p + i, ps, bytes);
    if (Mode != MomentumMode::none) std::memcpy(m + i, ms, bytes);
  }

  // Compiled apart from their callers: inlined, gcc's loops take a tenth longer.
  __attribute__((noinline)) static void widen(const float16* from, float* to, int64_t n) {
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) _mm256_storeu_ps(to + i, lrfused::widen(load(from + i)).lanes);
    for (; i < n; ++i) to[i] = lrfused::widen(from[i]);
  }
  __attribute__((noinline)) static void unscale(const float16* from, float scale, float* to,
                                                int64_t n) {
    const float8 scales = all(scale);
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
      _mm256_storeu_ps(to + i, rn<float16x8>(scales * lrfused::widen(load(from + i))).lanes);
    for (; i < n; ++i) to[i] = rn<float16>(scale * lrfused::widen(from[i]));
  }
  __attribute__((noinline)) static void narrow(const float* from, float16* to, int64_t n) {
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
      store(to + i, lrfused::narrow<float16x8>(float8{_mm256_loadu_ps(from + i)}));
    for (; i < n; ++i) to[i] = lrfused::narrow<float16>(from[i]);
  }
};

}  // namespace avx2
}  // namespace lrfused
