// The loop over bfloat16 for x86 CPUs with AVX-512 and its BF16.
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
#pragma clang attribute push(                                                               \
    __attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16"))), \
    apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")
#endif

#if !defined(__clang__)  // gcc 12 warns of its own headers
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include "isa.h"

#define LRFUSED_ISA avx512bf16
// clang-format off: each of them needs the ones before it
#include "update.inc"
#include "lanes64.h"
#include "blocks64.h"
#include "guarded64.h"
#include "choice.inc"
// clang-format on

namespace lrfused::avx512bf16 {
namespace {

Update update(DType dtype, const Group& group, MomentumMode mode, bool use_fma) {
  return dtype == DType::bfloat16 ? update_of<bfloat16>(group, mode, use_fma)
                                  : avx512::isa.update(dtype, group, mode, use_fma);
}
void update_master(const Slot& slot, int64_t begin, int64_t end, const Group& group, bool use_fma) {
  avx512::isa.update_master(slot, begin, end, group, use_fma);
}
SquareSum square_sum(DType dtype, bool single, bool scale) {
  return avx512::isa.square_sum(dtype, single, scale);
}

}  // namespace

extern const Isa isa = {update, update_master, square_sum};

}  // namespace lrfused::avx512bf16

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
