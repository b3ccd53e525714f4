// Two neighbouring bfloat16 at a time: a 32-bit word gives both without a shuffle.
#pragma once

#include "../numerics.h"

namespace lrfused {

// The first element is in the low half of a little-endian word.
struct Pair {
  wide_bfloat16 low, high;
};
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "Pair");

LRFUSED_HD Pair load_pair(const bfloat16* p, int64_t pair) {
  uint32_t word;
  memcpy(&word, p + 2 * pair, sizeof(word));
  return {{word << 16}, {word & 0xffff0000u}};
}
LRFUSED_HD void store_pair(bfloat16* p, int64_t pair, Pair x) {
  const uint32_t word = (x.low.bits >> 16) | x.high.bits;
  memcpy(p + 2 * pair, &word, sizeof(word));
}

}  // namespace lrfused
