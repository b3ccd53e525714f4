// Instruction sets: the loops of each, and the choice of the best that the CPU has.
//
// The loops, in update.inc and square_sum.inc, and the choice among them, in choice.inc and
// dispatch.inc, are compiled once for each instruction set, in a file and a namespace of its own:
// baseline.cpp, avx2.cpp, avx512.cpp and avx512bf16.cpp. isa.cpp detects and chooses. Results do
// not depend on the choice.
#pragma once

#include <vector>

#include "../slot.h"

namespace lrfused {

// Update n elements at (param, grad, buffer).
using Update = void (*)(void*, const void*, void*, int64_t, const Hypers&);

// Return the sum of the squares of n elements, at most kPiece of them, times inv_scale.
using SquareSum = double (*)(const void* grad, int64_t n, double inv_scale);

// The loops of one instruction set. `use_fma`: whether a * b + c is rounded once.
struct Isa {
  Update (*update)(DType dtype, const Group& group, MomentumMode mode, bool use_fma);
  // Update elements [begin, end) of a slot that has a master.
  void (*update_master)(const Slot& slot, int64_t begin, int64_t end, const Group& group,
                        bool use_fma);
  // `single`: whether gradients are unscaled in fp32, for a master, and not in their own dtype.
  SquareSum (*square_sum)(DType dtype, bool single, bool scale);
};

namespace baseline {  // any CPU of the architecture
extern const Isa isa;
}

#if defined(__x86_64__)
namespace avx2 {  // with FMA and F16C
extern const Isa isa;
}
// With F, BW, DQ and VL. Loops over fp32 and fp64 wait for memory, and are AVX2's; those over bf16
// and fp16 are bound by the instructions that round.
namespace avx512 {
extern const Isa isa;
}
namespace avx512bf16 {  // with BF16, for the updates of bf16; the rest is avx512's
extern const Isa isa;
}
#endif

// Return those that the CPU has, the best first.
std::vector<const Isa*> all_isas();

// Return the best that the CPU has.
const Isa& best_isa();

}  // namespace lrfused
