// The step's passes over memory on the CPU, each in one parallel region.
#pragma once

#include <functional>

#include "isa.h"

namespace lrfused {

// Update every slot. `use_fma`: whether a * b + c is rounded once, as in torch's own CPU kernels.
// `written` is called once for each slot, by some thread; of small ones `soon` a few slots before.
void update_cpu(const Slot* slots, int64_t count, const Group* groups, bool use_fma,
                const std::function<void(int64_t)>& soon,
                const std::function<void(int64_t)>& written, const Isa& isa = best_isa());

// Write the sums of the squares of the slots' gradients times inv_scale to sums[place]; norm.h.
void square_sums_cpu(const Slot* slots, int64_t count, double inv_scale, double* sums,
                     const Isa& isa = best_isa());

}  // namespace lrfused
