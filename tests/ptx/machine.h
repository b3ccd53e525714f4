// Runs a kernel: blocks of threads side by side, whose turns are random.
//
// A thread runs some instructions, then another thread does; the threads of a warp are not in step.
// All blocks run at once, as on a grid that is not larger than the device. A store is visible from
// the next turn on. A device may be less orderly, but with no other result: PTX promises this for
// launches whose accesses are all ordered, and Memory checks, by Order, that they are.
#pragma once

#include <vector>

#include "kernel.h"
#include "memory.h"
#include "random.h"

namespace lrfused::ptx {

struct Argument {
  const void* data;
  size_t size;
};

// Run a kernel, and mark the instructions that were reached. Throws a Fault for an error.
void launch(Kernel& kernel, int32_t blocks, int32_t threads, const std::vector<Argument>& arguments,
            std::vector<Region> regions, Random& random);

}  // namespace lrfused::ptx
