// Finding the tensors is most of the cost of a step over many small ones: all cache misses, a chain
// of eight for each parameter (object, tensor, autograd meta, gradient, their storages, the state's
// dict, the buffer). Parameters are read in batches, one link of the chain for the whole batch at a
// time, so that the misses of a batch overlap; and by all threads, which is safe because the
// calling thread holds the GIL and takes part: nobody writes.
#include "gather.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <c10/util/irange.h>
#include <torch/csrc/autograd/python_variable.h>

#include <array>
#include <cmath>
#include <cstddef>
#include <limits>
#include <unordered_map>

namespace lrfused {
namespace {

constexpr int64_t kBatch = 32;
constexpr int64_t kGrain = 512;  // parameters a thread is worth waking for

struct Candidate {
  PyObject* param;
  PyObject* state;  // the parameter's own dict, or nullptr
  int32_t group;
};

enum class Kind : uint8_t { skip, plain, odd };

PyObject* item(PyObject* dict, const char* name) {
  PyObject* value = PyDict_GetItemString(dict, name);
  if (value == nullptr) throw py::key_error(name);
  return value;
}

double number(PyObject* dict, const char* name, bool& valid) {
  const double value = PyFloat_AsDouble(item(dict, name));
  if (value == -1.0 && PyErr_Occurred()) {
    PyErr_Clear();
    valid = false;
  }
  return value;
}

bool truth(PyObject* dict, const char* name) {
  const int value = PyObject_IsTrue(item(dict, name));
  if (value < 0) throw py::error_already_set();
  return value != 0;
}

template <class M>
Hyper<M> rounded(const Hyper<double>& h) {
  // A NaN of the user's may have a payload, which wide_bfloat16 must not.
  const auto r = [](double x) {
    return std::isnan(x) ? std::numeric_limits<M>::quiet_NaN() : M(x);
  };
  return {r(h.grad_scale), r(h.weight_decay), r(h.momentum), r(h.undamped), r(h.minus_lr)};
}

// Clears `valid` for what is not a number, or not one in float32: Python finds the words for it.
Group read_group(PyObject* dict, double rate, double inv_scale, bool& valid) {
  const double momentum = number(dict, "momentum", valid);
  const double decay = number(dict, "weight_decay", valid);
  const double dampening = number(dict, "dampening", valid);
  const Hyper<double> h{truth(dict, "maximize") ? -inv_scale : inv_scale, decay, momentum,
                        1 - dampening, -rate};
  for (const double x : {decay, momentum, dampening, rate})
    if (std::isfinite(x) && std::isinf(float(x))) valid = false;
  return {
      {rounded<float>(h), h}, inv_scale != 1, decay != 0, momentum != 0, truth(dict, "nesterov")};
}

// The parameters in order, each with its entry of `state`. Entries are in the order of the
// parameters except after a late first gradient, so walking both in step finds them unhashed.
void list_candidates(const py::list& groups, PyObject* state, std::vector<Candidate>& out) {
  out.clear();
  Py_ssize_t position = 0, matched = 0;
  PyObject *key = nullptr, *value = nullptr;
  bool more = PyDict_Next(state, &position, &key, &value);
  for (const auto g : c10::irange(groups.size())) {
    PyObject* params = item(groups[g].ptr(), "params");
    if (!PyList_Check(params)) throw py::type_error("param_groups[...]['params'] must be a list");
    for (const auto i : c10::irange(PyList_GET_SIZE(params))) {
      PyObject* param = PyList_GET_ITEM(params, i);
      PyObject* own = nullptr;
      if (more && key == param) {
        own = value;
        ++matched;
        more = PyDict_Next(state, &position, &key, &value);
      }
      out.push_back({param, own, static_cast<int32_t>(g)});
    }
  }
  if (matched == PyDict_Size(state)) return;
  std::unordered_map<PyObject*, PyObject*> entries;
  position = 0;
  while (PyDict_Next(state, &position, &key, &value)) entries.emplace(key, value);
  for (auto& c : out) {
    const auto entry = entries.find(c.param);
    c.state = entry == entries.end() ? nullptr : entry->second;
  }
}

void prefetch(const void* p, size_t offset = 0) {
  __builtin_prefetch(static_cast<const char*>(p) + offset);
}

// Where in their objects the members lie that are read; only what is prefetched depends on it.
constexpr size_t kTail =
    sizeof(c10::TensorImpl) - 8;           // numel, dtype, keys; the rest is at the head
constexpr size_t kSizes = 64;              // of TensorImpl, the sizes of a vector
constexpr size_t kGrad = 40;               // of AutogradMeta
constexpr size_t kData = 16, kFlags = 56;  // of StorageImpl

void prefetch_impl(const c10::TensorImpl* t) {
  prefetch(t, 16);
  prefetch(t, kSizes);
  prefetch(t, kTail);
}

void prefetch_storage(const c10::TensorImpl* t) {
  const c10::StorageImpl* storage = t->unsafe_storage().unsafeGetStorageImpl();
  prefetch(storage, kData);
  prefetch(storage, kFlags);
}

bool dtype_of(const c10::TensorImpl* t, DType& dtype) {
  switch (c10::typeMetaToScalarType(t->dtype())) {
    case at::kFloat:
      dtype = DType::float32;
      return true;
    case at::kDouble:
      dtype = DType::float64;
      return true;
    case at::kBFloat16:
      dtype = DType::bfloat16;
      return true;
    case at::kHalf:
      dtype = DType::float16;
      return true;
    default:
      return false;
  }
}

c10::TensorImpl* impl_of(PyObject* tensor) {
  return THPVariable_Unpack(tensor).unsafeGetTensorImpl();
}

// The dispatch keys of an ordinary dense CPU tensor; subclasses, sparse, lazy and conjugated
// tensors and those of other devices have others.
c10::DispatchKeySet plain_keys() {
  static const c10::DispatchKeySet keys = at::empty({0}).key_set();
  return keys;
}

bool same_order(const c10::TensorImpl* a, const c10::TensorImpl* b) {
  if (a->is_contiguous() && b->is_contiguous()) return true;
  return a->is_non_overlapping_and_dense() && a->strides() == b->strides();
}

// Whether `t` is a stream that runs beside `param`.
bool beside(const c10::TensorImpl* t, const c10::TensorImpl* param) {
  return t->key_set() == plain_keys() && t->dtype() == param->dtype() &&
         t->sizes() == param->sizes() && same_order(param, t);
}

struct Links : Tensors {
  PyObject* buffer_object;
  Kind kind;
};

// The value of a state dict's momentum_buffer. One that is not its dict's first entry is left to
// the reference backend by calling the parameter odd.
Kind find_buffer(PyObject* own, PyObject*& buffer) {
  buffer = nullptr;
  if (own == nullptr) return Kind::plain;
  if (!PyDict_CheckExact(own)) return Kind::odd;
  Py_ssize_t position = 0;
  PyObject *key, *value;
  if (!PyDict_Next(own, &position, &key, &value)) return Kind::plain;
  if (key != buffer_key() &&
      !(PyUnicode_Check(key) && PyUnicode_CompareWithASCIIString(key, "momentum_buffer") == 0))
    return Kind::odd;
  if (value == Py_None) return Kind::plain;
  if (!THPVariable_CheckExact(value)) return Kind::odd;
  buffer = value;
  return Kind::plain;
}

void read_batch(const Candidate* c, int64_t n, const Group* groups, Slot* slots, Tensors* tensors,
                Kind* kinds) {
  std::array<Links, kBatch> links;
  for (const auto i : c10::irange(n)) {
    prefetch(c[i].param, 16);
    if (c[i].state) prefetch(c[i].state, 32);
  }
  for (const auto i : c10::irange(n)) {
    Links& l = links[i];
    l = {{c[i].param, nullptr, nullptr, nullptr}, nullptr, Kind::odd};
    if (!THPVariable_CheckExact(c[i].param)) continue;
    l.param = impl_of(c[i].param);
    l.kind = Kind::plain;
    prefetch_impl(l.param);
    if (groups[c[i].group].momentum && c[i].state)
      prefetch(reinterpret_cast<PyDictObject*>(c[i].state)->ma_keys, 40);
  }
  for (const auto i : c10::irange(n)) {
    Links& l = links[i];
    if (l.kind == Kind::odd) continue;
    prefetch(l.param->autograd_meta(), kGrad);
    if (l.param->has_storage()) prefetch_storage(l.param);
    if (!groups[c[i].group].momentum) continue;
    l.kind = find_buffer(c[i].state, l.buffer_object);
    if (l.buffer_object) prefetch(l.buffer_object, 16);
  }
  for (const auto i : c10::irange(n)) {
    Links& l = links[i];
    if (l.param == nullptr) continue;
    // A class of its own may answer .grad in its own way; Python asks it.
    if (l.param->key_set() != plain_keys()) {
      l.kind = Kind::odd;
      continue;
    }
    const auto* meta = static_cast<torch::autograd::AutogradMeta*>(l.param->autograd_meta());
    if (meta == nullptr || !meta->grad_.defined()) {
      l.kind = Kind::skip;
      continue;
    }
    if (l.kind == Kind::odd) continue;
    l.grad = meta->grad_.unsafeGetTensorImpl();
    prefetch_impl(l.grad);
    if (l.buffer_object) {
      l.buffer = impl_of(l.buffer_object);
      prefetch_impl(l.buffer);
    }
  }
  for (const auto i : c10::irange(n)) {
    Links& l = links[i];
    if (l.kind != Kind::plain) continue;
    if (!dtype_of(l.param, slots[i].dtype) || !beside(l.grad, l.param) ||
        !same_order(l.param, l.param) || (l.buffer && !beside(l.buffer, l.param))) {
      l.kind = Kind::odd;
      continue;
    }
    prefetch_storage(l.grad);
    if (l.buffer) prefetch_storage(l.buffer);
  }
  for (const auto i : c10::irange(n)) {
    const Links& l = links[i];
    kinds[i] = l.kind;
    if (l.kind != Kind::plain) continue;
    const bool momentum = groups[c[i].group].momentum;
    slots[i] = {l.param->mutable_data(),
                l.grad->data(),
                l.buffer ? l.buffer->mutable_data() : nullptr,
                l.param->numel(),
                c[i].group,
                slots[i].dtype,
                !momentum  ? Buffer::none
                : l.buffer ? Buffer::next
                           : Buffer::first};
    tensors[i] = l;
  }
}

}  // namespace

PyObject* buffer_key() {
  static PyObject* const key = PyUnicode_InternFromString("momentum_buffer");
  if (key == nullptr) throw py::error_already_set();
  return key;
}

void gather(const py::list& groups, const py::dict& state, const double* rates, double inv_scale,
            Found& found) {
  static thread_local std::vector<Candidate> candidates;
  static thread_local std::vector<Kind> kinds;
  plain_keys();  // made here, not by the first thread to ask
  buffer_key();
  found.groups.clear();
  found.valid = true;
  for (const auto g : c10::irange(groups.size()))
    found.groups.push_back(read_group(groups[g].ptr(), rates[g], inv_scale, found.valid));
  list_candidates(groups, state.ptr(), candidates);

  const int64_t count = static_cast<int64_t>(candidates.size());
  kinds.resize(count);
  found.slots.resize(count);
  found.tensors.resize(count);
  const Candidate* all = candidates.data();  // threads see their own thread_locals
  Kind* kind = kinds.data();
  at::parallel_for(0, count, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i += kBatch)
      read_batch(all + i, std::min(kBatch, end - i), found.groups.data(), found.slots.data() + i,
                 found.tensors.data() + i, kind + i);
  });

  found.odd.clear();
  found.numel = found.firsts = 0;
  int64_t plain = 0;
  for (const auto i : c10::irange(count)) {
    if (kind[i] == Kind::odd) found.odd.push_back({all[i].group, all[i].param});
    if (kind[i] != Kind::plain) continue;
    if (plain != i) {
      found.slots[plain] = found.slots[i];
      found.tensors[plain] = found.tensors[i];
    }
    found.numel += found.slots[plain].numel;
    found.firsts += found.slots[plain++].mode == Buffer::first;
  }
  found.slots.resize(plain);
  found.tensors.resize(plain);
}

}  // namespace lrfused
