// Finding the tensors is most of the cost of a step over many small ones: all cache misses, a chain
// for each parameter (object, tensor, autograd meta, gradient, their storages; the state's dict,
// its keys, the buffer, its storage). So six parameters are at each link of the chain at once, and
// each link prefetches the next: there is always a line on its way for every miss that a core can
// have outstanding, and no burst of more. All threads do so, which is safe because the calling
// thread holds the GIL and takes part: nobody writes.
#include "gather.h"

#include <ATen/ops/empty.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/impl/COWDeleter.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <c10/util/irange.h>
#include <torch/csrc/autograd/python_variable.h>

#include <atomic>
#include <cstddef>
#include <map>

#include "cpu/parallel.h"
#include "cuda/items.h"
#include "groups.h"
#include "parameters.h"
#include "prefetch.h"

namespace lrfused {
namespace {

constexpr int64_t kAhead = 6;    // parameters at each link
constexpr int64_t kRing = 32;    // more than all five links' and the one that starts
constexpr int64_t kGrain = 512;  // parameters a thread is worth waking for

enum class Kind : uint8_t { plain, skip, odd };

c10::TensorImpl* impl_of(PyObject* tensor) {
  return THPVariable_Unpack(tensor).unsafeGetTensorImpl();
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

// The dispatch keys of an ordinary dense tensor of a device type; subclasses, sparse, lazy and
// conjugated tensors and those of other devices have others.
c10::DispatchKeySet plain_keys(c10::DeviceType device) {
  static std::map<c10::DeviceType, c10::DispatchKeySet> known;  // guarded by the GIL
  const auto found = known.find(device);
  if (found != known.end()) return found->second;
  // Not in the caller's modes, such as inference mode, in which tensors have other keys.
  const c10::InferenceMode normal(false);
  const c10::impl::ExcludeDispatchKeyGuard plain(
      c10::DispatchKeySet({c10::DispatchKey::Python, c10::DispatchKey::PythonTLSSnapshot}));
  return known[device] = at::empty({0}, at::TensorOptions().device(device)).key_set();
}

constexpr const char* kBufferKey = "momentum_buffer";
const char* master_name(Master kept) {
  return kept == Master::whole ? "master" : "master_remainder";
}

PyObject* interned(const char* name) {
  PyObject* key = PyUnicode_InternFromString(name);
  if (key == nullptr) throw py::error_already_set();
  return key;
}

// Strings of a loaded checkpoint may be equal without being the same.
bool is_key(PyObject* key, PyObject* interned, const char* name) {
  return key == interned ||
         (PyUnicode_Check(key) && PyUnicode_CompareWithASCIIString(key, name) == 0);
}

bool same_order(const c10::TensorImpl* a, const c10::TensorImpl* b) {
  if (a->is_contiguous() && b->is_contiguous()) return true;
  return a->is_non_overlapping_and_dense() && a->strides() == b->strides();
}

// The first element's address, or null where the memory is not simply there (copy-on-write).
void* address(const c10::TensorImpl* t) {
  const at::DataPtr& data =
      t->unsafe_storage().unsafeGetStorageImpl()->_mutable_data_ptr_no_checks();
  if (data.get() == nullptr || data.get_deleter() == c10::impl::cow::cow_deleter) return nullptr;
  return static_cast<char*>(data.get()) + t->storage_offset() * t->itemsize();
}

// One parameter's chain, as far as it has been followed.
struct Links {
  Tensors tensors;
  PyObject *state, *buffer, *master;
  int32_t group;
  Kind kind;
};

// Whether a stream has its elements at addresses that are no multiples of their size.
bool misaligned(const Slot& s) {
  const auto off = [](const void* p, int64_t size) {
    return reinterpret_cast<uintptr_t>(p) % static_cast<uintptr_t>(size) != 0;
  };
  const cuda::Sizes size = cuda::sizes_of(s.dtype, s.grad_dtype, s.kept);
  return off(s.param, size.param) || off(s.grad, size.grad) || off(s.buffer, size.buffer) ||
         off(s.master, size.master);
}

class Reader {
 public:
  Reader(const Parameters& params, const std::vector<Group>& groups, Master kept, Found& found,
         Kind* kinds)
      : params_(params), groups_(groups), kept_(kept), found_(found), kinds_(kinds) {}

  // Returns false if the state is not in the order of the parameters.
  bool read(int64_t begin, int64_t end) {
    Links ring[kRing];
    int32_t group = params_.group(begin);
    for (int64_t i = begin; i < end + 5 * kAhead; ++i) {
      if (i < end) {
        while (i >= params_.end(group)) ++group;
        if (!start(i, group, ring[i % kRing])) return false;
      }
      const auto link = [&](int64_t number, auto follow) {
        const int64_t j = i - number * kAhead;
        if (j >= begin && j < end) follow(j, ring[j % kRing]);
      };
      link(1, [&](int64_t, Links& l) { objects(l); });
      link(2, [&](int64_t, Links& l) { heads(l); });
      link(3, [&](int64_t, Links& l) { gradient(l); });
      link(4, [&](int64_t j, Links& l) { storages(j, l); });
      link(5, [&](int64_t j, Links& l) { finish(j, l); });
    }
    return true;
  }

  int64_t numel = 0, firsts = 0, others = 0;

 private:
  bool start(int64_t i, int32_t group, Links& l) const {
    PyObject* param = params_.param(i, group);
    l = {};
    l.tensors.object = param;
    l.group = group;
    prefetch_tensor(param);
    if (!params_.entry(i, param, l.state)) return false;
    if (l.state) prefetch_dict(l.state);
    return true;
  }

  void objects(Links& l) const {
    if (!THPVariable_CheckExact(l.tensors.object)) {
      l.kind = Kind::odd;
      return;
    }
    l.tensors.param = impl_of(l.tensors.object);
    prefetch_impl(l.tensors.param);
    if (l.state && looks_up(l) && PyDict_CheckExact(l.state)) prefetch_keys(l.state);
  }

  void heads(Links& l) const {
    if (l.kind == Kind::odd) return;
    // A class of its own may answer .grad in its own way; Python asks it.
    if (l.tensors.param->key_set() != found_.keys) {
      l.kind = Kind::odd;
      return;
    }
    prefetch_meta(l.tensors.param->autograd_meta());
    prefetch_storage(l.tensors.param);
    if (!looks_up(l)) return;
    l.kind = find_own(l);
    for (PyObject* own : {l.buffer, l.master})
      if (own) prefetch_tensor(own);
  }

  // Whether the parameter's state matters.
  bool looks_up(const Links& l) const { return groups_[l.group].momentum || kept_ != Master::none; }

  // The tensors in a parameter's state.
  Kind find_own(Links& l) const {
    if (l.state == nullptr) return Kind::plain;
    if (!PyDict_CheckExact(l.state)) return Kind::odd;
    Py_ssize_t position = 0;
    PyObject *key, *value;
    while (PyDict_Next(l.state, &position, &key, &value)) {
      PyObject** own = nullptr;
      if (groups_[l.group].momentum && is_key(key, buffer_key(), kBufferKey))
        own = &l.buffer;
      else if (kept_ != Master::none && is_key(key, master_key(kept_), master_name(kept_)))
        own = &l.master;
      if (own == nullptr || value == Py_None) continue;
      if (!THPVariable_CheckExact(value)) return Kind::odd;
      *own = value;
    }
    return Kind::plain;
  }

  void gradient(Links& l) const {
    Tensors& t = l.tensors;
    if (t.param == nullptr || t.param->key_set() != found_.keys) return;
    const auto* meta = static_cast<torch::autograd::AutogradMeta*>(t.param->autograd_meta());
    if (meta == nullptr || !meta->grad_.defined()) {
      l.kind = Kind::skip;
      return;
    }
    t.grad = meta->grad_.unsafeGetTensorImpl();
    prefetch_impl(t.grad);
    if (l.buffer) prefetch_impl(t.buffer = impl_of(l.buffer));
    if (l.master) prefetch_impl(t.master = impl_of(l.master));
  }

  // Whether `other`, of a dtype, is a stream that runs beside `param`.
  bool beside(const c10::TensorImpl* other, at::ScalarType dtype,
              const c10::TensorImpl* param) const {
    return other->key_set() == found_.keys && other->dtype() == dtype &&
           other->sizes() == param->sizes() && same_order(param, other) &&
           (found_.on_cpu() || other->device() == param->device());
  }

  void storages(int64_t i, Links& l) {
    if (l.kind != Kind::plain) return;
    const Tensors& t = l.tensors;
    Slot& slot = found_.slots[i];
    const auto dtype = c10::typeMetaToScalarType(t.param->dtype());
    const bool half = dtype == at::kHalf;
    slot.kept = half || dtype == at::kBFloat16 ? kept_ : Master::none;
    const bool single = slot.kept != Master::none;
    const auto wide = single ? at::kFloat : dtype;
    const auto master = slot.kept == Master::whole ? at::kFloat : at::kShort;
    if (!dtype_of(t.param, slot.dtype) || (half && slot.kept == Master::remainder) ||
        !beside(t.param, dtype, t.param) ||
        !(beside(t.grad, dtype, t.param) || (single && beside(t.grad, wide, t.param))) ||
        (t.buffer && !beside(t.buffer, wide, t.param)) ||
        (single && t.master && !beside(t.master, master, t.param))) {
      l.kind = Kind::odd;
      return;
    }
    dtype_of(t.grad, slot.grad_dtype);
    prefetch_storage(t.grad);
    if (t.buffer) prefetch_storage(t.buffer);
    if (t.master) prefetch_storage(t.master);
  }

  void finish(int64_t i, Links& l) {
    const Tensors& t = l.tensors;
    Slot& slot = found_.slots[i];
    if (l.kind == Kind::plain) {
      slot.numel = t.param->numel();
      if (!found_.on_cpu()) slot.device = t.param->device().index();
      slot.param = address(t.param);
      slot.grad = address(t.grad);
      slot.buffer = t.buffer ? address(t.buffer) : nullptr;
      slot.master = t.master ? address(t.master) : nullptr;
      if (slot.numel != 0 &&
          (!slot.param || !slot.grad || (t.buffer && !slot.buffer) || (t.master && !slot.master)))
        l.kind = Kind::odd;
      if (found_.aligned && misaligned(slot)) l.kind = Kind::odd;
    }
    kinds_[i] = l.kind;
    slot.place = i;
    if (l.kind != Kind::plain) {
      found_.tensors[i].object = t.object;
      slot.group = l.group;
      ++others;
      return;
    }
    slot.group = l.group;
    slot.mode = !groups_[l.group].momentum ? Buffer::none : t.buffer ? Buffer::next : Buffer::first;
    firsts += slot.mode == Buffer::first || (slot.kept != Master::none && !t.master);
    numel += slot.numel;
    found_.tensors[i] = t;
    found_.tensors[i].version = version_of(t.param);
  }

  const Parameters& params_;
  const std::vector<Group>& groups_;
  const Master kept_;
  Found& found_;
  Kind* kinds_;
};

// Move what is not plain out of the slots, and all of them if the groups are not valid.
void separate(Found& found, const Kind* kinds) {
  int64_t plain = 0;
  for (const auto i : c10::irange(found.slots.size())) {
    const bool odd = kinds[i] == Kind::odd || (kinds[i] == Kind::plain && !found.valid);
    if (odd)
      found.odd.push_back({found.slots[i].group, static_cast<int64_t>(i), found.tensors[i].object});
    if (odd || kinds[i] == Kind::skip) continue;
    found.slots[plain] = found.slots[i];
    found.tensors[plain++] = found.tensors[i];
  }
  found.slots.resize(plain);
  found.tensors.resize(plain);
}

}  // namespace

PyObject* buffer_key() {
  static PyObject* const key = interned(kBufferKey);
  return key;
}

PyObject* master_key(Master kept) {
  static PyObject* const whole = interned(master_name(Master::whole));
  static PyObject* const remainder = interned(master_name(Master::remainder));
  return kept == Master::whole ? whole : remainder;
}

void gather(const py::list& groups, const py::dict& state, const double* cells, double inv_scale,
            c10::DeviceType device, Master kept, Found& found) {
  static thread_local std::vector<Kind> kinds;
  found.keys = plain_keys(device);
  buffer_key();  // made here, not by the first thread to ask
  master_key(kept);
  found.groups.clear();
  found.valid = true;
  for (const auto g : c10::irange(groups.size()))
    found.groups.push_back(read_group(groups[g].ptr(), cells[2 * g], inv_scale, found.valid));
  Parameters params(groups, state.ptr());
  const int64_t count = params.size();
  kinds.resize(count);
  found.slots.resize(count);
  found.tensors.resize(count);
  found.odd.clear();

  Kind* kind = kinds.data();  // threads see their own thread_locals
  std::atomic<int64_t> numel, firsts, others, next;
  std::atomic<bool> in_order;
  const int64_t threads = count <= kGrain ? 1 : std::min(thread_count(), 1 + (count - 1) / kGrain);
  const int64_t share = 1 + (count - 1) / threads;
  const auto read = [&] {
    numel = firsts = others = next = 0;
    in_order = true;
    parallel(threads > 1, [&] {
      for (int64_t begin; (begin = share * next++) < count;) {
        Reader reader(params, found.groups, kept, found, kind);
        if (!reader.read(begin, std::min(begin + share, count))) in_order = false;
        numel += reader.numel;
        firsts += reader.firsts;
        others += reader.others;
      }
    });
    return in_order.load();
  };
  if (!read()) {
    params.index();
    read();
  }
  found.numel = numel;
  found.places = count;
  found.firsts = firsts;
  if (others > 0 || !found.valid) separate(found, kind);
  if (!found.valid) found.numel = found.firsts = 0;
}

std::vector<c10::intrusive_ptr<c10::TensorImpl>> hold(const Found& found) {
  std::vector<c10::intrusive_ptr<c10::TensorImpl>> held;
  for (const Tensors& t : found.tensors)
    for (c10::TensorImpl* impl : {t.param, t.grad, t.buffer, t.master})
      if (impl) held.push_back(c10::intrusive_ptr<c10::TensorImpl>::reclaim_copy(impl));
  return held;
}

py::list odd_params(const Found& found) {
  py::list list;
  for (const Odd& o : found.odd)
    list.append(py::make_tuple(o.group, py::reinterpret_borrow<py::object>(o.param)));
  return list;
}

}  // namespace lrfused
