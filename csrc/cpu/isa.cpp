#include "isa.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace lrfused {
namespace {

#if defined(__x86_64__)
// The compilers' builtin asks whether the operating system keeps the registers, too. It has no name
// for F16C before gcc 11.
bool has_avx2() {
  unsigned a, b, c = 0, d;
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C) != 0;
}
#endif

const Isa& detect() {
#if defined(__x86_64__)
  if (has_avx2()) return avx2::isa;
#endif
  return baseline::isa;
}

}  // namespace

const Isa& best_isa() {
  static const Isa& best = detect();
  return best;
}

}  // namespace lrfused
