// The optimizer's zero_grad, for dense tensors of torch's own classes.
#pragma once

#include <pybind11/pybind11.h>

namespace py = pybind11;

namespace lrfused {

// Return the Python function zero_grad(groups, set_to_none), which drops the gradients of all
// parameters, or fills them with zeros. `groups` is an optimizer's param_groups, whatever a program
// has made of it. The function returns False, having changed nothing, where that takes torch's own
// zero_grad: while a profiler or a mode is active, for a subclass or a non-leaf; to fill them, also
// for a gradient that is sparse, on a device or part of a graph.
py::object zero_grad_function();

}  // namespace lrfused
