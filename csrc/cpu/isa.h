// The instruction sets that a loop is compiled for, and what the CPU at hand has of them.
#pragma once

#if defined(__x86_64__)
#include <cpuid.h>
#endif

// LRFUSED_AVX2: the attribute of a function that is called only where torch itself uses AVX2. That
// is enough for loops that wait for memory, and wider vectors would not change a bit.
#if defined(__x86_64__)
#define LRFUSED_AVX2 __attribute__((target("avx2,fma")))
#else
#define LRFUSED_AVX2
#endif

// LRFUSED_INDEPENDENT: the next loop's iterations write nothing that another one reads.
#if defined(__clang__)
#define LRFUSED_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define LRFUSED_INDEPENDENT _Pragma("GCC ivdep")
#endif

namespace lrfused {

// Return whether the CPU converts float16 by instructions of its own, eight at a time. Callers know
// that it has AVX2, so the operating system keeps the registers.
inline bool has_f16c() {
#if defined(__x86_64__)
  static const bool has = [] {
    unsigned a, b, c = 0, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C) != 0;
  }();
  return has;
#else
  return false;
#endif
}

}  // namespace lrfused
