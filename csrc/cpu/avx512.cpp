// The loops for x86 CPUs with AVX-512: F, BW, DQ and VL.
//
// Everything behind the pragma is compiled for these CPUs alone; avx2.cpp has the rest.
#if defined(__x86_64__)
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#if defined(__clang__)
#pragma clang attribute push(                                                    \
    __attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl"))), \
    apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")
#endif

#if !defined(__clang__)  // gcc 12 warns of its own headers
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include "isa.h"

#define LRFUSED_ISA avx512
#define LRFUSED_WIDE_ISA avx2
// clang-format off: each of them needs the ones before it
#include "update.inc"
#include "lanes64.h"
#include "blocks64.h"
#include "loops64.h"
#include "square_sum.inc"
#include "squares.h"
#include "dispatch.inc"
// clang-format on

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
