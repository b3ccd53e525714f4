#include "create.h"

#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/python_variable.h>
#include <torch/csrc/utils/pybind.h>

namespace lrfused {
namespace {

void set_item(PyObject* container, PyObject* key, PyObject* value) {
  if (PyObject_SetItem(container, key, value) < 0) throw py::error_already_set();
}

bool lacks_buffer(const Found& found, size_t i) {
  return found.slots[i].mode == MomentumMode::first;
}
bool lacks_master(const Found& found, size_t i) {
  return found.slots[i].master_form != MasterForm::none && found.tensors[i].master == nullptr;
}

void check_has(const py::dict& state, PyObject* param) {
  if (PyDict_GetItemWithError(state.ptr(), param) != nullptr) return;
  if (!PyErr_Occurred()) PyErr_SetObject(PyExc_KeyError, param);
  throw py::error_already_set();
}

}  // namespace

std::vector<at::Tensor> create(Found& found, const py::dict& state) {
  std::vector<at::Tensor> created;
  if (found.firsts == 0) return created;
  const bool makes_entries = py::hasattr(py::type::of(state), "__missing__");
  for (size_t i = 0; i < found.slots.size(); ++i) {
    if (!lacks_buffer(found, i) && !lacks_master(found, i)) continue;
    if (!makes_entries) check_has(state, found.tensors[i].object);
    Slot& slot = found.slots[i];
    const at::Tensor param = THPVariable_Unpack(found.tensors[i].object).detach();
    if (lacks_buffer(found, i)) {
      created.push_back(at::empty_like(
          param, slot.master_form == MasterForm::none ? param.scalar_type() : at::kFloat));
      slot.buffer = created.back().mutable_data_ptr();
    }
    if (lacks_master(found, i)) {
      created.push_back(slot.master_form == MasterForm::whole ? param.to(at::kFloat)
                                                              : at::zeros_like(param, at::kShort));
      slot.master = created.back().mutable_data_ptr();
    }
  }
  return created;
}

void put(const Found& found, const std::vector<at::Tensor>& created, const py::dict& state) {
  auto next = created.begin();
  for (size_t i = 0; next != created.end(); ++i) {
    if (!lacks_buffer(found, i) && !lacks_master(found, i)) continue;
    const py::object own = state[py::handle(found.tensors[i].object)];
    if (lacks_buffer(found, i)) set_item(own.ptr(), buffer_key(), py::cast(*next++).ptr());
    if (lacks_master(found, i))
      set_item(own.ptr(), master_key(found.slots[i].master_form), py::cast(*next++).ptr());
  }
}

}  // namespace lrfused
