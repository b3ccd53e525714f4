// The optimizer's zero_grad, for dense tensors of torch's own classes.
#pragma once

#include <pybind11/pybind11.h>

namespace py = pybind11;

namespace lrfused {

// Drop the gradients of all parameters, or fill them with zeros. Returns false, having changed
// nothing, if one of them needs torch's own zero_grad: a subclass or a non-leaf; to be filled, also
// a gradient that is sparse, on a device, part of a graph, or seen by a mode.
bool zero_grad(const py::list& groups, bool set_to_none);

}  // namespace lrfused
