// One parallel region over units of all tensors of all groups.
#include <cstring>
#include <type_traits>

#include "../master.h"
#include "../step.h"
#include "half.h"
#include "isa.h"
#include "units.h"

namespace lrfused {
namespace {

// Two neighbouring bfloat16, the first in the low half of a little-endian word.
struct Pair {
  wide_bfloat16 low, high;
};
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "Pair");

LRFUSED_HD Pair load(const bfloat16* p, int64_t pair) {
  uint32_t word;
  memcpy(&word, p + 2 * pair, sizeof(word));
  return {{word << 16}, {word & 0xffff0000u}};
}
LRFUSED_HD void store(bfloat16* p, int64_t pair, Pair x) {
  const uint32_t word = (x.low.bits >> 16) | x.high.bits;
  memcpy(p + 2 * pair, &word, sizeof(word));
}

#define LRFUSED_ISA baseline
#define LRFUSED_TARGET
#define LRFUSED_FUSED false
#include "update.inc"
#undef LRFUSED_ISA
#undef LRFUSED_TARGET
#undef LRFUSED_FUSED

#define LRFUSED_ISA with_fma
#define LRFUSED_TARGET LRFUSED_AVX2
#define LRFUSED_FUSED true
#include "update.inc"

}  // namespace

void update_cpu(const Slot* slots, int64_t count, const Group* groups, bool fused,
                const std::function<void(int64_t)>& soon,
                const std::function<void(int64_t)>& written) {
  Update (*const choose)(DType, const Group&, Buffer) = fused ? with_fma::choose : baseline::choose;
  const auto update_master = fused ? with_fma::update_master : baseline::update_master;

  const auto run = [&](int64_t i, int64_t begin, int64_t end) {
    const Slot& s = slots[i];
    const Group& group = groups[s.group];
    if (s.kept != Master::none) {
      update_master(s, begin, end, group);
    } else {
      const size_t offset = begin * itemsize(s.dtype);
      const auto at = [&](auto* stream) { return stream ? stream + offset : nullptr; };
      choose(s.dtype, group, s.mode)(at(static_cast<char*>(s.param)),
                                     at(static_cast<const char*>(s.grad)),
                                     at(static_cast<char*>(s.buffer)), end - begin, group.hypers);
    }
    if (begin == 0) written(i);
  };
  for_each_unit(slots, count, [&](const Unit& u) {
    if (u.last == u.first + 1) return run(u.first, u.begin, u.end);
    for (int64_t i = u.first; i < u.last; ++i) {
      // The next tensors' lines are in no stream the hardware could see coming.
      const int64_t next = std::min(i + 3, u.last - 1);
      const Slot& ahead = slots[next];
      soon(next);
      for (int64_t byte = 0; byte < 256; byte += 64) {
        __builtin_prefetch(static_cast<const char*>(ahead.param) + byte, 1);
        __builtin_prefetch(static_cast<const char*>(ahead.grad) + byte, 0);
        __builtin_prefetch(static_cast<const char*>(ahead.buffer) + byte, 1);
      }
      run(i, 0, slots[i].numel);
    }
  });
}

}  // namespace lrfused
