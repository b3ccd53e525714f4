// Runs a kernel: blocks of threads side by side, whose turns are random.
//
// A thread runs some instructions, then another one does; those of a warp are not in step. All
// blocks are there at once, as they are on a grid that is not larger than the device. What a turn
// stores the next one loads; a device may be less orderly, but not where it could be told: PTX
// promises that for launches whose accesses are all ordered, which is what Memory checks, by Order.
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

// Throws a Fault if the kernel makes one. Notes which instructions have run.
void launch(Kernel& kernel, int32_t blocks, int32_t threads, const std::vector<Argument>& arguments,
            std::vector<Region> regions, Random& random);

}  // namespace lrfused::ptx
