// A stand-in for a CUDA graph: recorded launches, to be run again and again.
#pragma once

#include <functional>
#include <vector>

namespace lrfused::cuda {

struct Tape {
  std::vector<std::function<void()>> kernels;
};

// Record launches in a tape instead of running them; null ends that. Returns the last tape.
Tape* record_to(Tape* tape);

}  // namespace lrfused::cuda
