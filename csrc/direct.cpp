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

int Direct::traverse(visitproc visit, void* arg) const {
  for (const py::object* own :
       {&object, static_cast<const py::object*>(&read), static_cast<const py::object*>(&torchs)})
    Py_VISIT(own->ptr());
  return maker->traverse(visit, arg);
}

namespace {

// The object that its functions are bound to. The collector looks into it, as an optimizer may be
// part of a cycle: a hook of a parameter holds it, and it the parameter. Each such cycle passes
// through a dict or a list, which the collector clears.
struct Owner {
  PyObject head;
  Direct* direct;
};

Direct& direct_of(PyObject* owner) { return *reinterpret_cast<Owner*>(owner)->direct; }

int traverse_owner(PyObject* owner, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(owner));
  return direct_of(owner).traverse(visit, arg);
}
void free_owner(PyObject* owner) {
  PyTypeObject* type = Py_TYPE(owner);
  PyObject_GC_UnTrack(owner);
  delete &direct_of(owner);
  type->tp_free(owner);
  Py_DECREF(type);
}

PyTypeObject* owner_type() {
  static PyType_Slot slots[] = {{Py_tp_traverse, reinterpret_cast<void*>(traverse_owner)},
                                {Py_tp_dealloc, reinterpret_cast<void*>(free_owner)},
                                {0, nullptr}};
  static PyType_Spec spec{
      "lrfused._C.Direct", sizeof(Owner), 0,
      Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION, slots};
  static PyObject* const type = PyType_FromSpec(&spec);
  if (type == nullptr) throw py::error_already_set();
  return reinterpret_cast<PyTypeObject*>(type);
}

py::object own(Direct direct) {
  auto held = std::make_unique<Direct>(std::move(direct));
  PyTypeObject* type = owner_type();
  auto* owner = PyObject_GC_New(Owner, type);
  if (owner == nullptr) throw py::error_already_set();
  owner->direct = held.release();
  PyObject_GC_Track(owner);
  return py::reinterpret_steal<py::object>(reinterpret_cast<PyObject*>(owner));
}

// pybind11's calls read more lines than the step.
template <bool (Direct::*function)(PyObject*)>
PyObject* call(PyObject* owner, PyObject* optimizer) {
  HANDLE_TH_ERRORS
  return PyBool_FromLong((direct_of(owner).*function)(optimizer));
  END_HANDLE_TH_ERRORS
}
PyObject* call_observe(PyObject* owner, PyObject* const* arguments, Py_ssize_t count) {
  HANDLE_TH_ERRORS
  TORCH_CHECK_TYPE(count == 2, "observe takes an optimizer and a metric");
  return PyBool_FromLong(direct_of(owner).observe(arguments[0], arguments[1]));
  END_HANDLE_TH_ERRORS
}

PyMethodDef step_def{"step", call<&Direct::step>, METH_O, nullptr};
PyMethodDef step_schedule_def{"step_schedule", call<&Direct::step_schedule>, METH_O, nullptr};
PyMethodDef observe_def{"observe",
                        reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(call_observe)),
                        METH_FASTCALL, nullptr};

}  // namespace

py::tuple functions(Direct direct) {
  const py::object owner = own(std::move(direct));
  const auto function = [&](PyMethodDef& def) {
    auto made = py::reinterpret_steal<py::object>(PyCFunction_New(&def, owner.ptr()));
    if (!made) throw py::error_already_set();
    return made;
  };
  return py::make_tuple(function(step_def), function(step_schedule_def), function(observe_def));
}

}  // namespace lrfused
