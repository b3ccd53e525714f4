// The loops over bfloat16 and float16, sixty-four at a time. Included by avx512.cpp alone.
#pragma once

namespace lrfused::avx512 {

template <>
template <bool Scale, bool Decay, MomentumMode Mode, bool Nesterov, bool UseFma>
void Loop<bfloat16>::update(void* param, const void* grad, void* buffer, int64_t n,
                            const Hypers& hypers) {
  update_blocks<bfloat16, bfloat16x64, Scale, Decay, Mode, Nesterov, UseFma>(param, grad, buffer, n,
                                                                             hypers);
}
template <>
template <bool Scale, bool Decay, MomentumMode Mode, bool Nesterov, bool UseFma>
void Loop<float16>::update(void* param, const void* grad, void* buffer, int64_t n,
                           const Hypers& hypers) {
  update_blocks<float16, float16x64, Scale, Decay, Mode, Nesterov, UseFma>(param, grad, buffer, n,
                                                                           hypers);
}

// Compiled apart from their callers, as in float16x8.h.
template <>
__attribute__((noinline)) inline void Loop<float16>::widen(const float16* from, float* to,
                                                           int64_t n) {
  const auto block = [&](int64_t i, auto which) __attribute__((always_inline)) {
    store16(to + i, which, _mm512_cvtph_ps(load16(from + i, which)));
  };
  by<16>(n, block);
}
template <>
__attribute__((noinline)) inline void Loop<float16>::narrow(const float* from, float16* to,
                                                            int64_t n) {
  const auto block = [&](int64_t i, auto which) __attribute__((always_inline)) {
    store16(to + i, which, to_half_without_payload(load16(from + i, which)));
  };
  by<16>(n, block);
}

}  // namespace lrfused::avx512
