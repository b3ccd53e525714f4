// Sums of squares on the CPU, in one parallel region; the order is norm.h's.
#include <vector>

#include "../norm.h"
#include "passes.h"
#include "units.h"

namespace lrfused {

static_assert(kUnit % kPiece == 0, "a unit of one tensor begins with a piece");

void square_sums_cpu(const Slot* slots, int64_t count, double inv_scale, double* sums,
                     const Isa& isa) {
  // Where each slot's pieces begin.
  std::vector<int64_t> first(count + 1, 0);
  for (int64_t i = 0; i < count; ++i)
    first[i + 1] = first[i] + (slots[i].numel + kPiece - 1) / kPiece;
  std::vector<double> pieces(first[count]);

  const auto run = [&](int64_t i, int64_t begin, int64_t end) {
    const Slot& s = slots[i];
    const SquareSum sum =
        isa.square_sum(s.grad_dtype, s.master_form != MasterForm::none, inv_scale != 1);
    for (; begin < end; begin += kPiece)
      pieces[first[i] + begin / kPiece] =
          sum(static_cast<const char*>(s.grad) + begin * itemsize(s.grad_dtype),
              std::min(kPiece, end - begin), inv_scale);
  };
  static thread_local Pace pace;
  for_each_unit(
      count, [&](int64_t i) { return slots[i].numel; }, pace,
      [&](const Unit& u) {
        if (u.last == u.first + 1) return run(u.first, u.begin, u.end);
        for (int64_t i = u.first; i < u.last; ++i) run(i, 0, slots[i].numel);
      });
  for (int64_t i = 0; i < count; ++i)
    sums[slots[i].place] = ordered_sum(pieces.data() + first[i], first[i + 1] - first[i]);
}

}  // namespace lrfused
