// From Python's param_groups and state to slots, anew at every step.
//
// Wrappers replace group dicts, parameters, gradients and tensors' memory between steps, so nothing
// found in one step is trusted in the next. What makes that affordable is how it is read: see
// gather.cpp.
#pragma once

#include <ATen/core/Tensor.h>
#include <pybind11/pybind11.h>

#include <vector>

#include "slot.h"

namespace py = pybind11;

namespace lrfused {

// A parameter whose tensors are not plain streams in one memory order.
struct Odd {
  int64_t group, place;
  PyObject* param;  // borrowed
};

// The tensors behind a slot, borrowed.
struct Tensors {
  PyObject* object;
  c10::TensorImpl *param, *grad, *buffer, *master;  // the last two are null before the first step
  const void* version;                              // the parameter's, only to be prefetched
};

struct Found {
  bool aligned = false;      // whether addresses must be multiples of an element's size
  c10::DispatchKeySet keys;  // of the dense tensors of the device type that is looked for
  std::vector<Group> groups;
  std::vector<Slot> slots;       // parameters that have a gradient, in order
  std::vector<Tensors> tensors;  // of the slots
  std::vector<Odd> odd;
  bool valid = true;  // whether all groups' numbers are numbers, and in float32's range
  int64_t numel = 0;
  int64_t places = 0;  // all parameters
  int64_t firsts = 0;  // slots that lack a momentum buffer or a master yet

  bool on_cpu() const { return keys.has(c10::DispatchKey::CPU); }
};

// The interned "momentum_buffer", and "master" or "master_remainder".
PyObject* buffer_key();
PyObject* master_key(Master kept);

// Read groups (a list of dicts) and state (the optimizer's). Group g's rate is cells[2 g]; `kept`
// is what 16-bit parameters have of a master.
//
// Where a group's numbers are not valid no parameter has a slot; all are odd then.
void gather(const py::list& groups, const py::dict& state, const double* cells, double inv_scale,
            c10::DeviceType device, Master kept, Found& found);

// References to all tensors of the slots, for as long as other Python code may drop a gradient.
std::vector<c10::intrusive_ptr<c10::TensorImpl>> hold(const Found& found);

// The odd parameters as [(group, param)].
py::list odd_params(const Found& found);

}  // namespace lrfused
