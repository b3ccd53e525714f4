// From Python's param_groups and state to slots, anew at every step.
//
// Wrappers replace group dicts, parameters, gradients and tensors' memory between steps, so nothing
// found in one step is trusted in the next. gather.cpp reads fast enough to afford that.
#pragma once

#include <ATen/core/Tensor.h>
#include <pybind11/pybind11.h>

#include <utility>
#include <vector>

#include "slot.h"

namespace py = pybind11;

namespace lrfused {

// A parameter whose tensors are not plain streams in one memory order: Python updates it.
struct Odd {
  int64_t group, place;
  PyObject* param;  // borrowed
};

// The tensors behind a slot, borrowed.
struct Tensors {
  PyObject* object;
  c10::TensorImpl *param, *grad, *buffer, *master;  // the last two are null before the first step
  const void *version, *buffer_version;             // only prefetched
};

// Bump the versions of the parameter and its momentum buffer, which were written: autograd raises
// an error where it has kept one of them.
inline void bump_versions(const Tensors& t) {
  t.param->bump_version();
  if (t.buffer) t.buffer->bump_version();
}

struct Found {
  bool aligned = false;      // whether addresses must be multiples of an element's size
  c10::DispatchKeySet keys;  // of plain tensors of the device type
  std::vector<Group> groups;
  std::vector<Slot> slots;       // of parameters that have a gradient, in order
  std::vector<Tensors> tensors;  // of the slots
  std::vector<Odd> odd;
  bool valid = true;  // whether all groups' values are numbers in float32's range
  int64_t numel = 0;
  int64_t places = 0;  // all parameters
  int64_t firsts = 0;  // slots that lack a momentum buffer or a master

  bool on_cpu() const { return keys.has(c10::DispatchKey::CPU); }
};

// A Found whose memory serves every step of a thread. A step inside of another one, which the
// user's code may make, has memory of its own.
class SpareFound {
 public:
  SpareFound() : found_(std::move(spare())) {}
  ~SpareFound() { spare() = std::move(found_); }
  SpareFound(const SpareFound&) = delete;
  SpareFound& operator=(const SpareFound&) = delete;
  Found& operator*() { return found_; }

 private:
  static Found& spare() {
    static thread_local Found found;
    return found;
  }

  Found found_;
};

// The interned "momentum_buffer", and "master" or "master_remainder".
PyObject* buffer_key();
PyObject* master_key(MasterForm master_form);

// Read groups, a list of dicts, and the optimizer's state. Group g's rate is cells[2 g];
// `master_form` is the form of 16-bit parameters' masters. All parameters are odd if a group is not
// valid, if two of them share memory, and where torch's own step would refuse them.
void gather(const py::list& groups, const py::dict& state, const double* cells, double inv_scale,
            c10::DeviceType device, MasterForm master_form, Found& found);

// Return references to all tensors of the slots: other Python code may drop a gradient.
using Held = std::vector<c10::intrusive_ptr<c10::TensorImpl>>;
Held hold(const Found& found);

// Return the odd parameters as [(group, param)].
py::list odd_params(const Found& found);

}  // namespace lrfused
