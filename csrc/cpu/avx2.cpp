// The loops for x86 CPUs with AVX2, FMA and F16C.
//
// Everything behind the pragma is compiled for these CPUs alone, so the standard headers, whose
// functions other files share, come before it. None of our shared functions may be emitted out of
// line.
#if defined(__x86_64__)
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c")
#endif

#include "isa.h"

#define LRFUSED_ISA avx2
// clang-format off: each of them needs the ones before it
#include "update.inc"
#include "float16x8.h"
#include "square_sum.inc"
#include "dispatch.inc"
// clang-format on

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
