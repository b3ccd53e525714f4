// Making what a first step lacks: momentum buffers, and masters, which begin as their parameters.
#pragma once

#include <vector>

#include "gather.h"

namespace lrfused {

// Create them, and set the slots' addresses. The state has none of them before `put`.
std::vector<at::Tensor> create(Found& found);

// Put them into the state.
void put(const Found& found, const std::vector<at::Tensor>& created, const py::dict& state);

}  // namespace lrfused
