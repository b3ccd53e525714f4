// Creating momentum buffers and masters for first steps. A master begins as its parameter.
#pragma once

#include <vector>

#include "gather.h"

namespace lrfused {

// Create them, and set the slots' addresses. The state has none of them before `put`. Raises
// KeyError if the state has no entry for a parameter and makes none, as a plain dict.
std::vector<at::Tensor> create(Found& found, const py::dict& state);

// Put them into the state.
void put(const Found& found, const std::vector<at::Tensor>& created, const py::dict& state);

}  // namespace lrfused
