// The update in blocks of sixty-four elements: lanes64.h. Included as that one is.
#pragma once

namespace lrfused {

// Call block(i, which) for every multiple of `Size` below n.
template <int64_t Size, class Block>
LRFUSED_HD void by(int64_t n, const Block& block) {
  int64_t i = 0;
  for (; i + Size <= n; i += Size) block(i, Every{});
  if (i < n) block(i, Some{n - i});
}

LRFUSED_HD float32x64 all(float x) {
  const __m512 lanes = _mm512_set1_ps(x);
  return {lanes, lanes, lanes, lanes};
}
LRFUSED_HD Hyper<float32x64> spread(const Hyper<float>& h) {
  return {all(h.grad_factor),         all(h.weight_decay), all(h.momentum),
          all(h.one_minus_dampening), all(h.minus_lr),     all(h.clip)};
}

// Prefetch so far ahead. The CPU's own prefetcher is late: a loop of so many instructions lets few
// loads begin early.
constexpr int64_t kAhead = 384;  // bytes

LRFUSED_HD void prefetch_block(const void* stream) {
  __builtin_prefetch(static_cast<const char*>(stream) + kAhead);
  __builtin_prefetch(static_cast<const char*>(stream) + kAhead + 64);
}

// Whether a rounding may have made a subnormal number 0.
template <class V>
LRFUSED_HD bool is_lost(const V&) {
  return false;
}

// Update sixty-four elements, or the first of them, unless a result is lost. Return whether.
template <class V, bool Scale, bool Decay, MomentumMode Mode, bool Nesterov, bool UseFma, class T,
          class Which>
LRFUSED_HD bool update_block(T* param, const T* grad, T* buffer, Which which,
                             const Hyper<opmath_t<V>>& h) {
  V p, g, m;
  load(param, which, p);
  load(grad, which, g);
  if (Mode == MomentumMode::next) load(buffer, which, m);
  sgd<V, Scale, Decay, Mode, Nesterov, UseFma, Scale>(p, g, m, h);
  if (is_lost(p)) return false;
  store(param, which, p);
  if (Mode != MomentumMode::none) store(buffer, which, m);
  return true;
}

template <class T, class V, bool Scale, bool Decay, MomentumMode Mode, bool Nesterov, bool UseFma>
LRFUSED_HD void update_blocks(void* param, const void* grad, void* buffer, int64_t n,
                              const Hypers& hypers) {
  T* p = static_cast<T*>(param);
  const T* g = static_cast<const T*>(grad);
  T* m = static_cast<T*>(buffer);
  const Hyper<float32x64> h = spread(hypers.fp32);
  by<64>(n, [&](int64_t i, auto which) __attribute__((always_inline)) {
    prefetch_block(p + i);
    prefetch_block(g + i);
    if (Mode != MomentumMode::none) prefetch_block(m + i);
    update_block<V, Scale, Decay, Mode, Nesterov, UseFma>(p + i, g + i, m + i, which, h);
  });
}

}  // namespace lrfused
