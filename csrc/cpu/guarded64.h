// bfloat16 rounded by one instruction, where that is right. Included by avx512bf16.cpp alone.
//
// vcvtne2ps2bf16 rounds thirty-two numbers as lanes64.h does in eight instructions, but makes
// subnormal ones 0. So a result of 0 may be a lost one: the block, and some after it, are then
// computed without that instruction.
#pragma once

namespace lrfused {

struct guarded_bfloat16x64 {
  bfloat16x64 x;
  __mmask32 lost;  // which may be lost, of either thirty-two
};
struct guarded_float32x64 {
  float32x64 x;
  __mmask32 lost;
  bfloat16x64 rounded;  // x, where it was rounded before
};
template <>
struct opmath<guarded_bfloat16x64> {
  using type = guarded_float32x64;
};

LRFUSED_HD bfloat16x64 unrounded() { return {_mm512_setzero_si512(), _mm512_setzero_si512()}; }
LRFUSED_HD guarded_float32x64 operator*(const guarded_float32x64& x, const guarded_float32x64& y) {
  return {x.x * y.x, x.lost | y.lost, unrounded()};
}
template <bool UseFma>
LRFUSED_HD guarded_float32x64 fma(const guarded_float32x64& x, const guarded_float32x64& y,
                                  const guarded_float32x64& z) {
  return {fma<UseFma>(x.x, y.x, z.x), x.lost | y.lost | z.lost, unrounded()};
}

// In each 32-bit word i: i in the low half, 16 + i in the high one.
LRFUSED_HD __m512i interleaving() {
  const __m512i i = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  return _mm512_or_si512(i, _mm512_slli_epi32(_mm512_add_epi32(i, _mm512_set1_epi32(16)), 16));
}
// Of thirty-two bfloat16: the first sixteen, the last sixteen, and one of each in every word.
LRFUSED_HD __m512 widen_first(__m512i x) {
  const __m512i first = _mm512_slli_epi32(interleaving(), 16);
  return _mm512_castsi512_ps(_mm512_maskz_permutexvar_epi16(0xaaaaaaaa, first, x));
}
LRFUSED_HD __m512 widen_last(__m512i x) {
  return _mm512_castsi512_ps(_mm512_maskz_permutexvar_epi16(0xaaaaaaaa, interleaving(), x));
}
LRFUSED_HD __m512i interleave(__m512i x) { return _mm512_permutexvar_epi16(interleaving(), x); }

LRFUSED_HD __m512i round_pair(__m512 first, __m512 last) {
  return (__m512i)_mm512_cvtne2ps_pbh(last, first);
}
LRFUSED_HD __mmask32 zeros(__m512i x) {
  return _mm512_testn_epi16_mask(x, _mm512_set1_epi16(0x7fff));
}

LRFUSED_HD guarded_float32x64 widen(const guarded_bfloat16x64& x) {
  return {widen(x.x), x.lost, x.x};
}
template <>
LRFUSED_HD guarded_float32x64 rn<guarded_bfloat16x64>(guarded_float32x64 x) {
  const __m512i ab = round_pair(x.x.a, x.x.b), cd = round_pair(x.x.c, x.x.d);
  return {{widen_first(ab), widen_last(ab), widen_first(cd), widen_last(cd)},
          x.lost | zeros(ab) | zeros(cd),
          {interleave(ab), interleave(cd)}};
}
template <>
LRFUSED_HD guarded_bfloat16x64 pack<guarded_bfloat16x64>(guarded_float32x64 x) {
  return {x.rounded, x.lost};
}
template <>
LRFUSED_HD guarded_bfloat16x64 narrow<guarded_bfloat16x64>(guarded_float32x64 x) {
  return pack<guarded_bfloat16x64>(rn<guarded_bfloat16x64>(x));
}

LRFUSED_HD bool is_lost(const guarded_bfloat16x64& x) { return x.lost != 0; }
LRFUSED_HD void load(const bfloat16* p, Every every, guarded_bfloat16x64& x) {
  load(p, every, x.x);
  x.lost = 0;
}
LRFUSED_HD void store(bfloat16* p, Every every, const guarded_bfloat16x64& x) {
  store(p, every, x.x);
}

LRFUSED_HD guarded_float32x64 guard(float32x64 x) { return {x, 0, unrounded()}; }
LRFUSED_HD Hyper<guarded_float32x64> guard(const Hyper<float32x64>& h) {
  return {guard(h.grad_factor),         guard(h.weight_decay), guard(h.momentum),
          guard(h.one_minus_dampening), guard(h.minus_lr),     guard(h.clip)};
}

namespace avx512bf16 {

// Elements computed without the instruction from the block with a 0 on: zeros come in crowds, as of
// an embedding's rows that a batch does not use.
constexpr int64_t kCrowd = 1024;

// Compiled apart: its constants would take the loop's registers.
template <bool Scale, bool Decay, MomentumMode Mode, bool Nesterov, bool UseFma>
__attribute__((noinline)) void update_crowd(bfloat16* p, const bfloat16* g, bfloat16* m, int64_t n,
                                            const Hypers& hypers) {
  update_blocks<bfloat16, bfloat16x64, Scale, Decay, Mode, Nesterov, UseFma>(p, g, m, n, hypers);
}

template <>
template <bool Scale, bool Decay, MomentumMode Mode, bool Nesterov, bool UseFma>
void Loop<bfloat16>::update(void* param, const void* grad, void* buffer, int64_t n,
                            const Hypers& hypers) {
  bfloat16* p = static_cast<bfloat16*>(param);
  const bfloat16* g = static_cast<const bfloat16*>(grad);
  bfloat16* m = static_cast<bfloat16*>(buffer);
  const Hyper<float> scalars = hypers.fp32;
  for (int64_t i = 0; i < n;) {
    prefetch_block(p + i);
    prefetch_block(g + i);
    if (Mode != MomentumMode::none) prefetch_block(m + i);
    if (i + 64 <= n && update_block<guarded_bfloat16x64, Scale, Decay, Mode, Nesterov, UseFma>(
                           p + i, g + i, m + i, Every{}, guard(spread(scalars)))) {
      i += 64;
    } else {
      const int64_t crowd = std::min(kCrowd, n - i);
      update_crowd<Scale, Decay, Mode, Nesterov, UseFma>(p + i, g + i, m + i, crowd, hypers);
      i += crowd;
    }
  }
}

}  // namespace avx512bf16
}  // namespace lrfused
