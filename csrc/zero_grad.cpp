// As in gather.cpp, the cost is cache misses, a chain of them for each gradient, and of freeing it
// more than of finding it. So several gradients are at each stage of the chain at once, and each
// stage prefetches what the next one reads.
#include "zero_grad.h"

#include <ATen/record_function.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/autograd/python_variable.h>

#include <cstring>
#include <optional>
#include <vector>

#include "cpu/units.h"
#include "groups.h"
#include "plain.h"
#include "prefetch.h"

namespace lrfused {
namespace {

using torch::autograd::AutogradMeta;

constexpr size_t kGap = 4;  // gradients at each stage

// Run stages 0, 1, ... on each of `count` items, each stage kGap items behind the one before it.
template <class... Stage>
void pipeline(size_t count, Stage... stage) {
  for (size_t i = 0; i < count + kGap * (sizeof...(stage) - 1); ++i) {
    size_t behind = 0;
    const auto run = [&](auto& one) {
      if (i >= behind && i - behind < count) one(i - behind);
      behind += kGap;
    };
    (run(stage), ...);
  }
}

// Find the parameters that have a gradient. Returns false if one is no leaf of torch's own classes.
bool find(py::handle groups, std::vector<AutogradMeta*>& found) {
  static thread_local std::vector<PyObject*> params;
  params.clear();
  if (!PyList_CheckExact(groups.ptr())) return false;
  for (Py_ssize_t g = 0; g < PyList_GET_SIZE(groups.ptr()); ++g) {
    PyObject* group = PyList_GET_ITEM(groups.ptr(), g);
    if (!PyDict_CheckExact(group)) return false;
    PyObject* list = item(group, keys::params);
    if (!PyList_CheckExact(list)) return false;
    params.insert(params.end(), PySequence_Fast_ITEMS(list),
                  PySequence_Fast_ITEMS(list) + PyList_GET_SIZE(list));
  }
  bool plain = true;
  const auto meta_of = [&](size_t i) {
    return THPVariable_Unpack(params[i]).unsafeGetTensorImpl()->autograd_meta();
  };
  pipeline(
      params.size(), [&](size_t i) { prefetch_tensor(params[i]); },
      [&](size_t i) {
        plain &= THPVariable_CheckExact(params[i]);
        if (plain) prefetch_impl(THPVariable_Unpack(params[i]).unsafeGetTensorImpl());
      },
      [&](size_t i) {
        if (plain) prefetch_meta(meta_of(i));
      },
      [&](size_t i) {
        auto* meta = plain ? static_cast<AutogradMeta*>(meta_of(i)) : nullptr;
        if (meta == nullptr || !meta->grad_.defined()) return;
        plain &= !meta->grad_fn_;
        found.push_back(meta);
      });
  return plain;
}

// Return the storage that goes with a gradient, if it goes: nobody else has a part of the two.
c10::StorageImpl* sole_storage(const at::Tensor& grad) {
  const c10::TensorImpl* t = grad.unsafeGetTensorImpl();
  if (grad.use_count() != 1 || python_object(t) != nullptr || !t->has_storage()) return nullptr;
  c10::StorageImpl* storage = t->unsafe_storage().unsafeGetStorageImpl();
  const bool sole = c10::raw::intrusive_ptr::use_count(storage) == 1;
  return sole && storage->device_type() == c10::kCPU ? storage : nullptr;
}

// Gradients that are freed may run Python code, which may call this again: all are taken first.
//
// Blocks of memory are freed before the small objects of their tensors. In the other order glibc
// has many small chunks to merge when it frees a block: a third of the time, as measured.
void drop(const std::vector<AutogradMeta*>& found) {
  static thread_local std::vector<at::Tensor> spare_grads;
  static thread_local std::vector<c10::DataPtr> spare_blocks;
  std::vector<at::Tensor> grads = std::move(spare_grads);
  std::vector<c10::DataPtr> blocks = std::move(spare_blocks);
  grads.resize(found.size());
  pipeline(
      found.size(),
      [&](size_t i) {
        grads[i] = std::move(found[i]->grad_);
        prefetch_whole(grads[i].unsafeGetTensorImpl());
      },
      [&](size_t i) {
        const c10::TensorImpl* grad = grads[i].unsafeGetTensorImpl();
        if (grad->has_storage()) prefetch_whole(grad->unsafe_storage().unsafeGetStorageImpl());
      },
      [&](size_t i) {
        c10::StorageImpl* storage = sole_storage(grads[i]);
        if (storage == nullptr) return;
        blocks.push_back(std::move(storage->_mutable_data_ptr_no_checks()));
        // Before a block is the allocator's own line.
        __builtin_prefetch(static_cast<const char*>(blocks.back().get()) - 16, 1);
      });
  blocks.clear();
  grads.clear();
  spare_grads = std::move(grads);
  spare_blocks = std::move(blocks);
}

struct Bytes {
  char* begin;
  int64_t count;
};

// Return whether a gradient's memory is one run of bytes that nobody else has to see change.
bool is_plain(const at::Tensor& grad, c10::DispatchKeySet keys) {
  const c10::TensorImpl* t = grad.unsafeGetTensorImpl();
  PyObject* object = python_object(t);
  return t->key_set() == keys && (object == nullptr || THPVariable_CheckExact(object)) &&
         !grad.requires_grad() && t->is_non_overlapping_and_dense() &&
         (t->numel() == 0 || address_of(t) != nullptr);
}

bool fill(const std::vector<AutogradMeta*>& found) {
  const c10::DispatchKeySet keys = plain_keys(c10::kCPU);
  static thread_local std::vector<Bytes> bytes;
  bytes.clear();
  int64_t total = 0, largest = 0;
  for (const AutogradMeta* meta : found) {
    if (!is_plain(meta->grad_, keys)) return false;
    const c10::TensorImpl* grad = meta->grad_.unsafeGetTensorImpl();
    const int64_t count = grad->numel() * int64_t(grad->itemsize());
    if (count == 0) continue;  // it may have no address, which memset must not get
    bytes.push_back({static_cast<char*>(address_of(grad)), count});
    total += count;
    largest = std::max(largest, grad->numel());
  }
  for (const AutogradMeta* meta : found) meta->grad_.unsafeGetTensorImpl()->bump_version();
  // From 4 MiB on other Python threads run meanwhile, which may drop gradients that are not held.
  std::vector<at::Tensor> held;
  std::optional<py::gil_scoped_release> released;
  if (total >= 4 << 20) {
    for (const AutogradMeta* meta : found) held.push_back(meta->grad_);
    released.emplace();
  }
  // Units are counted in elements of 4 bytes.
  const Bytes* first = bytes.data();  // not `bytes`: each thread would see its own
  const auto numel = [&](int64_t i) { return (first[i].count + 3) / 4; };
  static thread_local Pace pace;
  const auto run = [&](const Unit& u) {
    if (u.last == u.first + 1) {
      const Bytes& b = first[u.first];
      std::memset(b.begin + 4 * u.begin, 0, std::min(4 * u.end, b.count) - 4 * u.begin);
      return;
    }
    for (int64_t i = u.first; i < u.last; ++i) std::memset(first[i].begin, 0, first[i].count);
  };
  for_each_unit(static_cast<int64_t>(bytes.size()), numel, pace, run, largest);
  return true;
}

bool zero_grad(py::handle groups, bool set_to_none) {
  if (python_modes() || refuses_plain()) return false;
  // Memory that serves every call: a new block here would have glibc sort what backward freed.
  static thread_local std::vector<AutogradMeta*> found;
  found.clear();
  if (!find(groups, found)) return false;
  if (!set_to_none) return fill(found);
  drop(found);
  return true;
}

// pybind11's calls read more lines than a small zero_grad.
PyObject* call_zero_grad(PyObject*, PyObject* const* arguments, Py_ssize_t count) {
  HANDLE_TH_ERRORS
  TORCH_CHECK_TYPE(count == 2, "zero_grad takes groups and set_to_none");
  const int set_to_none = PyObject_IsTrue(arguments[1]);
  if (set_to_none < 0) throw py::error_already_set();
  return PyBool_FromLong(!at::hasCallbacks() && zero_grad(arguments[0], set_to_none != 0));
  END_HANDLE_TH_ERRORS
}

PyMethodDef zero_grad_def{
    "zero_grad", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(call_zero_grad)),
    METH_FASTCALL, nullptr};

}  // namespace

py::object zero_grad_function() {
  auto made = py::reinterpret_steal<py::object>(PyCFunction_New(&zero_grad_def, nullptr));
  if (!made) throw py::error_already_set();
  return made;
}

}  // namespace lrfused
