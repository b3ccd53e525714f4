#include "direct.h"

#include <ATen/record_function.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/autograd/python_variable.h>

#include "groups.h"
#include "plain.h"

namespace lrfused {
namespace {

PyObject* intern(const char* name) { return PyUnicode_InternFromString(name); }

// Interned attributes of an optimizer.
namespace names {
PyObject* const groups = intern("param_groups");
PyObject* const state = intern("state");
PyObject* const step = intern("step");
PyObject* const pre_hooks = intern("_optimizer_step_pre_hooks");
PyObject* const post_hooks = intern("_optimizer_step_post_hooks");
PyObject* const grad_scale = intern("grad_scale");
PyObject* const found_inf = intern("found_inf");
PyObject* const global_pre_hooks = intern("_global_optimizer_pre_hooks");
PyObject* const global_post_hooks = intern("_global_optimizer_post_hooks");
}  // namespace names

bool is_empty(PyObject* dict, PyObject* name) {
  PyObject* found = PyDict_GetItemWithError(dict, name);
  if (found == nullptr && PyErr_Occurred()) throw py::error_already_set();
  return found != nullptr && PyDict_Check(found) && PyDict_Size(found) == 0;
}

// The attributes of an optimizer, borrowed.
class Attributes {
 public:
  explicit Attributes(PyObject* optimizer)
      : type_(Py_TYPE(optimizer)),
        dict_(py::reinterpret_steal<py::object>(PyObject_GenericGetDict(optimizer, nullptr))) {
    if (dict_) return;
    PyErr_Clear();  // a wrapper without attributes of its own
    dict_ = py::dict();
  }

  // Return an attribute, or null.
  PyObject* operator[](PyObject* name) const {
    PyObject* found = PyDict_GetItemWithError(dict_.ptr(), name);
    if (found == nullptr && PyErr_Occurred()) throw py::error_already_set();
    return found;
  }
  // Return whether there is an attribute, of the class too.
  bool has(PyObject* name) const {
    return (*this)[name] != nullptr || _PyType_Lookup(type_, name) != nullptr;
  }
  bool has_none_in(PyObject* name) const { return is_empty(dict_.ptr(), name); }

 private:
  PyTypeObject* type_;
  py::object dict_;
};

bool have_values(const py::list& groups, const py::list& read) {
  for (const py::handle entry : read) {
    PyObject* group = PyTuple_GET_ITEM(entry.ptr(), 0);
    const Py_ssize_t g = PyLong_AsSsize_t(group);
    PyObject* found =
        PyDict_GetItemWithError(PyList_GET_ITEM(groups.ptr(), g), PyTuple_GET_ITEM(entry.ptr(), 1));
    if (found == nullptr && PyErr_Occurred()) throw py::error_already_set();
    if ((found == nullptr ? Py_None : found) != PyTuple_GET_ITEM(entry.ptr(), 2)) return false;
  }
  return true;
}

// Return a metric, if it is a float or a plain tensor in host memory that holds one.
std::optional<double> number_of(PyObject* metric) {
  if (PyFloat_CheckExact(metric)) return PyFloat_AS_DOUBLE(metric);
  if (!THPVariable_CheckExact(metric) || python_modes()) return std::nullopt;
  const c10::TensorImpl* t = THPVariable_Unpack(metric).unsafeGetTensorImpl();
  if (t->key_set() != plain_keys(c10::kCPU) || t->numel() != 1) return std::nullopt;
  const void* at = address_of(t);
  if (at == nullptr) return std::nullopt;
  switch (c10::typeMetaToScalarType(t->dtype())) {
    case at::kFloat:
      return *static_cast<const float*>(at);
    case at::kDouble:
      return *static_cast<const double*>(at);
    default:
      return std::nullopt;
  }
}

// Return whether a torch scheduler has wrapped an optimizer's step; null if nobody has.
bool is_wrapped(PyObject* step) {
  return step != nullptr && PyObject_HasAttrString(step, "_wrapped_by_lr_sched") != 0;
}

}  // namespace

std::optional<py::list> Direct::known_groups(PyObject* list) const {
  if (list == nullptr || !PyList_CheckExact(list)) return std::nullopt;
  auto groups = py::reinterpret_borrow<py::list>(list);
  if (!program.shows(groups) || !have_values(groups, read)) return std::nullopt;
  return groups;
}

bool Direct::step(PyObject* optimizer) {
  if (maker->rest > 0 && --maker->rest > 0) return false;
  const Attributes own(optimizer);
  if (at::hasCallbacks() || !own.has_none_in(names::pre_hooks) ||
      !own.has_none_in(names::post_hooks) || own.has(names::grad_scale) ||
      own.has(names::found_inf) || !is_empty(torchs.ptr(), names::global_pre_hooks) ||
      !is_empty(torchs.ptr(), names::global_post_hooks))
    return false;
  if (advance && (program.left <= 0 || (may_warn && is_wrapped(own[names::step])))) return false;
  PyObject* dict = own[names::state];
  if (dict == nullptr || !PyDict_Check(dict)) return false;
  const auto state = py::reinterpret_borrow<py::dict>(dict);
  const auto groups = known_groups(own[names::groups]);
  if (!groups || !maker->step(*groups, state, program, advance)) return false;
  program.forget();
  return true;
}

bool Direct::step_schedule(PyObject* optimizer) {
  if (!by_hand || program.left <= 0) return false;
  const auto groups = known_groups(Attributes(optimizer)[names::groups]);
  if (!groups) return false;
  program.keep();  // before the move; it keeps what a step in Python would
  if (!maker->step_schedule(program)) return false;
  program.show(*groups);
  return true;
}

bool Direct::observe(PyObject* optimizer, PyObject* metric) {
  if (!fed_before) return false;
  const auto number = number_of(metric);
  if (!number) return false;
  const auto groups = known_groups(Attributes(optimizer)[names::groups]);
  if (!groups) return false;
  program.keep();
  program.feed(*number);
  program.note_plateaus(program.fed() - *fed_before);
  program.show(*groups);
  return true;
}

namespace {

constexpr const char* kName = "lrfused.Direct";

// pybind11's calls read more lines than the step.
Direct* direct_of(PyObject* capsule) {
  return static_cast<Direct*>(PyCapsule_GetPointer(capsule, kName));
}
template <bool (Direct::*function)(PyObject*)>
PyObject* call(PyObject* capsule, PyObject* optimizer) {
  Direct* direct = direct_of(capsule);
  if (direct == nullptr) return nullptr;
  HANDLE_TH_ERRORS
  return PyBool_FromLong((direct->*function)(optimizer));
  END_HANDLE_TH_ERRORS
}
PyObject* call_observe(PyObject* capsule, PyObject* const* arguments, Py_ssize_t count) {
  Direct* direct = direct_of(capsule);
  if (direct == nullptr) return nullptr;
  HANDLE_TH_ERRORS
  TORCH_CHECK_TYPE(count == 2, "observe takes an optimizer and a metric");
  return PyBool_FromLong(direct->observe(arguments[0], arguments[1]));
  END_HANDLE_TH_ERRORS
}

PyMethodDef step_def{"step", call<&Direct::step>, METH_O, nullptr};
PyMethodDef step_schedule_def{"step_schedule", call<&Direct::step_schedule>, METH_O, nullptr};
PyMethodDef observe_def{"observe",
                        reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(call_observe)),
                        METH_FASTCALL, nullptr};

}  // namespace

py::tuple functions(Direct direct) {
  const auto free = [](PyObject* capsule) {
    delete static_cast<Direct*>(PyCapsule_GetPointer(capsule, kName));
  };
  auto own = std::make_unique<Direct>(std::move(direct));
  const auto capsule = py::reinterpret_steal<py::object>(PyCapsule_New(own.get(), kName, free));
  if (!capsule) throw py::error_already_set();
  own.release();
  const auto function = [&](PyMethodDef& def) {
    auto made = py::reinterpret_steal<py::object>(PyCFunction_New(&def, capsule.ptr()));
    if (!made) throw py::error_already_set();
    return made;
  };
  return py::make_tuple(function(step_def), function(step_schedule_def), function(observe_def));
}

}  // namespace lrfused
