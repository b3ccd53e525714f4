// From Python's param_groups and state to slots, anew at every step.
//
// Wrappers replace group dicts, parameters, gradients and tensors' memory between steps, so nothing
// found in one step is trusted in the next. What makes that affordable is how it is read: see
// gather.cpp.
#pragma once

#include <ATen/core/Tensor.h>
#include <pybind11/pybind11.h>

#include <vector>

#include "program.h"
#include "step.h"

namespace py = pybind11;

namespace lrfused {

// A parameter whose tensors are not three plain streams in one memory order.
struct Odd {
  int64_t group;
  PyObject* param;  // borrowed
};

// The tensors behind a slot, borrowed.
struct Tensors {
  PyObject* object;
  c10::TensorImpl *param, *grad, *buffer;  // buffer is null before the first step
};

struct Found {
  std::vector<Group> groups;
  std::vector<Slot> slots;       // parameters that have a gradient, in order
  std::vector<Tensors> tensors;  // of the slots
  std::vector<Odd> odd;
  bool valid = true;  // whether all groups' numbers are numbers, and in float32's range
  int64_t numel = 0;
  int64_t firsts = 0;  // slots that have no momentum buffer yet
};

// The interned "momentum_buffer".
PyObject* buffer_key();

// Read groups (a list of dicts) and state (the optimizer's), with the program's rates.
void gather(const py::list& groups, const py::dict& state, const Program& program, double inv_scale,
            Found& found);

}  // namespace lrfused
