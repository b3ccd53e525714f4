// The optimizer's zero_grad, for dense tensors of torch's own classes.
#pragma once

#include <pybind11/pybind11.h>

namespace py = pybind11;

namespace lrfused {

// Return the Python function zero_grad(groups, set_to_none) -> bool: as below, and false while a
// profiler is active.
py::object zero_grad_function();

// Drop the gradients of all parameters, or fill them with zeros. `groups` is an optimizer's
// param_groups, whatever a program has made of it. Returns false, having changed
// nothing, where that takes torch's own zero_grad: under a mode, for a subclass or a non-leaf; to
// fill them, also for a gradient that is sparse, on a device or part of a graph.
bool zero_grad(py::handle groups, bool set_to_none);

}  // namespace lrfused
