// A stand-in for a CUDA graph: launches that are kept, to be run again and again.
#pragma once

#include <functional>
#include <vector>

namespace lrfused::cuda {

struct Tape {
  std::vector<std::function<void()>> kernels;
};

// Keep launches in a tape instead of running them; null ends that. Returns the tape until now.
Tape* record_to(Tape* tape);

}  // namespace lrfused::cuda
