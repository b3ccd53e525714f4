#include "isa.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace lrfused {
namespace {

#if defined(__x86_64__)
// The compilers' builtin asks whether the operating system keeps the registers, too. It has no name
// for F16C before gcc 11, and may have none for BF16.
bool has_avx2() {
  unsigned a, b, c = 0, d;
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C) != 0;
}
bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
bool has_avx512bf16() {
  unsigned a = 0, b, c, d;
  return has_avx512() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 5 & 1) != 0;
}
#endif

}  // namespace

std::vector<const Isa*> all_isas() {
  std::vector<const Isa*> isas;
#if defined(__x86_64__)
  if (has_avx512bf16()) isas.push_back(&avx512bf16::isa);
  if (has_avx512()) isas.push_back(&avx512::isa);
  if (has_avx2()) isas.push_back(&avx2::isa);
#endif
  isas.push_back(&baseline::isa);
  return isas;
}

const Isa& best_isa() {
  static const Isa& best = *all_isas().front();
  return best;
}

}  // namespace lrfused
