// float16 by the instructions that an x86 CPU has for it. Elsewhere update.inc converts it.
#pragma once

#include "../step.h"

namespace lrfused {

using Update = void (*)(void*, const void*, void*, int64_t, const Hypers&);

#if defined(__x86_64__)
constexpr bool kHalf = true;
#else
constexpr bool kHalf = false;
#endif

Update half_update(const Group& group, Buffer buffer);
void widen_half(const float16* from, float* to, int64_t n);
// The numbers times `scale`, each product rounded to float16.
void unscale_half(const float16* from, float scale, float* to, int64_t n);
void narrow_half(const float* from, float16* to, int64_t n);

}  // namespace lrfused
