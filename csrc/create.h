// Making what a first step lacks: momentum buffers, and masters, which begin as their parameters.
#pragma once

#include <vector>

#include "gather.h"

namespace lrfused {

// Make it, and let the slots have it. The state has nothing of it before `keep`.
std::vector<at::Tensor> create(Found& found);

// Put what was made into the state.
void keep(const Found& found, const std::vector<at::Tensor>& created, const py::dict& state);

}  // namespace lrfused
