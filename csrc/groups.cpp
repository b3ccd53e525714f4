#include "groups.h"

#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/python_variable.h>

#include <cmath>
#include <limits>
#include <utility>

namespace lrfused {

namespace keys {
PyObject* const params = PyUnicode_InternFromString("params");
PyObject* const lr = PyUnicode_InternFromString("lr");
PyObject* const momentum = PyUnicode_InternFromString("momentum");
PyObject* const dampening = PyUnicode_InternFromString("dampening");
PyObject* const weight_decay = PyUnicode_InternFromString("weight_decay");
PyObject* const nesterov = PyUnicode_InternFromString("nesterov");
PyObject* const maximize = PyUnicode_InternFromString("maximize");
PyObject* const schedule = PyUnicode_InternFromString("schedule");
// Of a group's place.
PyObject* const epoch = PyUnicode_InternFromString("epoch");
PyObject* const metrics = PyUnicode_InternFromString("metrics");
PyObject* const plateaus = PyUnicode_InternFromString("plateaus");
}  // namespace keys

namespace {

double number(PyObject* dict, PyObject* key, bool& valid) {
  const double value = PyFloat_AsDouble(item(dict, key));
  if (value == -1.0 && PyErr_Occurred()) {
    PyErr_Clear();
    valid = false;
  }
  return value;
}

bool truth(PyObject* dict, PyObject* key) {
  const int value = PyObject_IsTrue(item(dict, key));
  if (value < 0) throw py::error_already_set();
  return value != 0;
}

template <class M>
Hyper<M> rounded(const Hyper<double>& h) {
  // wide_bfloat16 needs NaNs without a payload.
  const auto r = [](double x) {
    return std::isnan(x) ? std::numeric_limits<M>::quiet_NaN() : M(x);
  };
  return {r(h.grad_factor), r(h.weight_decay), r(h.momentum), r(h.one_minus_dampening),
          r(h.minus_lr)};
}

// Put a rate into the user's tensor; where the tensor is the cell, it is there.
void fill(const at::Tensor& tensor, const double* cell) {
  if (tensor.const_data_ptr() == cell) return;
  const c10::NoGradGuard no_grad;
  tensor.fill_(*cell);
}

// Return what a list has for a group, borrowed, if the group has the same object.
PyObject* shown_now(const py::list& groups, PyObject* key, PyObject* list, size_t g) {
  PyObject* group = PyList_GetItem(groups.ptr(), static_cast<Py_ssize_t>(g));
  PyObject* shown = PyList_GetItem(list, static_cast<Py_ssize_t>(g));
  if (group == nullptr || shown == nullptr) throw py::error_already_set();
  if (!PyDict_CheckExact(group)) return nullptr;
  PyObject* found = PyDict_GetItemWithError(group, key);
  if (found == nullptr && PyErr_Occurred()) throw py::error_already_set();
  return found == shown ? shown : nullptr;
}

// Return whether a group and a list show this float, bit for bit.
bool shows_float(const py::list& groups, PyObject* key, PyObject* list, size_t g, double value) {
  PyObject* shown = shown_now(groups, key, list, g);
  return shown != nullptr && PyFloat_CheckExact(shown) &&
         bit_cast<uint64_t>(PyFloat_AS_DOUBLE(shown)) == bit_cast<uint64_t>(value);
}

// Return whether a place has its template's entries, and one more: its epoch.
bool is_copy(PyObject* place, PyObject* own) {
  if (!PyDict_CheckExact(place) || PyDict_GET_SIZE(place) != PyDict_GET_SIZE(own) + 1) return false;
  Py_ssize_t position = 0;
  PyObject *key, *value;
  while (PyDict_Next(own, &position, &key, &value)) {
    const PyObject* found = PyDict_GetItemWithError(place, key);
    if (found == nullptr && PyErr_Occurred()) throw py::error_already_set();
    if (found != value) return false;
  }
  return true;
}

// Put a value into a group and into a list, as one object in both.
void show(const py::list& groups, PyObject* key, PyObject* list, size_t g, py::object value) {
  const auto group = py::reinterpret_borrow<py::object>(PyList_GetItem(groups.ptr(), g));
  if (!group || PyObject_SetItem(group.ptr(), key, value.ptr()) < 0 ||
      PyList_SetItem(list, static_cast<Py_ssize_t>(g), value.release().ptr()) < 0)
    throw py::error_already_set();
}

}  // namespace

PyObject* item(PyObject* dict, PyObject* key) {
  TORCH_CHECK_TYPE(PyDict_Check(dict), "each of param_groups must be a dict");
  PyObject* value = PyDict_GetItemWithError(dict, key);
  if (value != nullptr) return value;
  if (!PyErr_Occurred()) PyErr_SetObject(PyExc_KeyError, key);
  throw py::error_already_set();
}

Group read_group(PyObject* dict, double rate, double inv_scale, bool& valid) {
  const double momentum = number(dict, keys::momentum, valid);
  const double decay = number(dict, keys::weight_decay, valid);
  const double dampening = number(dict, keys::dampening, valid);
  const Hyper<double> h{truth(dict, keys::maximize) ? -inv_scale : inv_scale, decay, momentum,
                        1 - dampening, -rate};
  const bool nesterov = truth(dict, keys::nesterov);
  // Momentum without nesterov may be infinite in float32: in torch it only multiplies.
  for (const double x : {decay, nesterov ? momentum : 0, dampening, rate})
    if (std::isfinite(x) && std::isinf(float(x))) valid = false;
  return {{rounded<float>(h), h}, h.grad_factor != 1, decay != 0, momentum != 0, nesterov};
}

bool is_same(const py::list& a, const py::list& b) {
  const Py_ssize_t count = PyList_GET_SIZE(a.ptr());
  if (count != PyList_GET_SIZE(b.ptr())) return false;
  for (Py_ssize_t i = 0; i < count; ++i)
    if (PyList_GET_ITEM(a.ptr(), i) != PyList_GET_ITEM(b.ptr(), i)) return false;
  return true;
}

bool have(const py::list& groups, PyObject* key, const py::list& values, bool none_is_any) {
  const Py_ssize_t count = PyList_GET_SIZE(groups.ptr());
  if (count != PyList_GET_SIZE(values.ptr())) return false;
  for (Py_ssize_t g = 0; g < count; ++g) {
    const PyObject* value = PyList_GET_ITEM(values.ptr(), g);
    if (none_is_any && value == Py_None) continue;
    const PyObject* found = PyDict_GetItemWithError(PyList_GET_ITEM(groups.ptr(), g), key);
    if (found == nullptr && PyErr_Occurred()) throw py::error_already_set();
    if ((found == nullptr ? Py_None : found) != value) return false;
  }
  return true;
}

void show_rates(const py::list& groups, py::handle rates, const double* cells) {
  for (size_t g = 0; g < groups.size(); ++g) {
    PyObject* shown = PyList_GetItem(rates.ptr(), static_cast<Py_ssize_t>(g));
    if (shown == nullptr) throw py::error_already_set();
    if (THPVariable_Check(shown))
      fill(THPVariable_Unpack(shown), &cells[2 * g]);
    else if (!shows_float(groups, keys::lr, rates.ptr(), g, cells[2 * g]))
      show(groups, keys::lr, rates.ptr(), g, py::float_(cells[2 * g]));
  }
}

void show_momenta(const py::list& groups, py::handle momenta, const double* cells) {
  for (size_t g = 0; g < groups.size(); ++g) {
    const PyObject* shown = PyList_GetItem(momenta.ptr(), g);
    if (shown == nullptr) throw py::error_already_set();
    if (shown != Py_None)
      show(groups, keys::momentum, momenta.ptr(), g, py::float_(cells[2 * g + 1]));
  }
}

void show_places(const py::list& groups, py::handle templates, py::handle places,
                 const int64_t* epochs) {
  for (size_t g = 0; g < groups.size(); ++g) {
    PyObject* own = PyList_GetItem(templates.ptr(), static_cast<Py_ssize_t>(g));
    if (own == nullptr) throw py::error_already_set();
    if (own == Py_None) continue;
    const py::int_ epoch(epochs[g]);
    const auto put_epoch = [&](PyObject* place) {
      if (PyDict_SetItem(place, keys::epoch, epoch.ptr()) < 0) throw py::error_already_set();
    };
    PyObject* shown = shown_now(groups, keys::schedule, places.ptr(), g);
    // Nobody else has it: what somebody has does not change.
    if (shown != nullptr && Py_REFCNT(shown) == 2 && is_copy(shown, own)) {
      put_epoch(shown);
      continue;
    }
    auto place = py::reinterpret_steal<py::object>(PyDict_Copy(own));
    if (!place) throw py::error_already_set();
    put_epoch(place.ptr());
    show(groups, keys::schedule, places.ptr(), g, std::move(place));
  }
}

void note_plateaus(const py::list& templates, int64_t group, int64_t metrics,
                   const py::list& states) {
  PyObject* before = PyList_GetItem(templates.ptr(), static_cast<Py_ssize_t>(group));
  if (before == nullptr) throw py::error_already_set();
  const auto note = [&](PyObject* place) {
    if (PyDict_SetItem(place, keys::metrics, py::int_(metrics).ptr()) < 0 ||
        PyDict_SetItem(place, keys::plateaus, states.ptr()) < 0)
      throw py::error_already_set();
  };
  if (Py_REFCNT(before) == 1 && PyDict_CheckExact(before)) return note(before);  // nobody has it
  auto now =
      py::reinterpret_steal<py::object>(before == Py_None ? PyDict_New() : PyDict_Copy(before));
  if (!now) throw py::error_already_set();
  note(now.ptr());
  if (PyList_SetItem(templates.ptr(), static_cast<Py_ssize_t>(group), now.release().ptr()) < 0)
    throw py::error_already_set();
}

py::object copy(const py::list& list) {
  auto same = py::reinterpret_steal<py::object>(
      PyList_GetSlice(list.ptr(), 0, PyList_GET_SIZE(list.ptr())));
  if (!same) throw py::error_already_set();
  return same;
}

void clear(const py::list& list) {
  if (PyList_SetSlice(list.ptr(), 0, PyList_GET_SIZE(list.ptr()), nullptr) < 0)
    throw py::error_already_set();
}

}  // namespace lrfused
