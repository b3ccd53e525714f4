// Finding the tensors is most of the cost of a step over many small ones. All of it is cache
// misses, a chain of them for each parameter. So three parameters are at each stage of the chain at
// once, and each stage prefetches what the next one reads. More parameters at a stage ask for more
// lines than a core can await. A line that a stage reads without that stops all chains: so was the
// class of the momentum read once, where its object had just been found.
//
//     stage     follows                        prefetches              sorts out
//     object    the list to a parameter, the   the object,             -
//               state to its entry             the entry
//     impl      the object to its tensor       the tensor,             odd: a subclass
//                                              the entry's keys
//     meta      the entry to the buffer and    autograd's data, the    odd: other dispatch keys
//               the master                     storage, the buffer,
//                                              the master
//     gradient  autograd's data to the         these tensors           skipped: no gradient;
//               gradient, objects to tensors                           odd: a buffer or a master
//                                                                      that is no plain object
//     storages  tensors to their storages, the these storages,         odd: another dtype, shape,
//               gradient to its object         the object              order or device
//     address   storages to their memory       -                       odd: no memory, misaligned,
//                                                                      streams that share memory,
//                                                                      a gradient of a subclass
//
// All threads do so. That is safe because the calling thread holds the GIL and takes part: nobody
// writes.
#include "gather.h"

#include <c10/util/irange.h>
#include <torch/csrc/autograd/python_variable.h>

#include <atomic>
#include <cstddef>

#include "apart.h"
#include "cpu/units.h"
#include "cuda/items.h"
#include "groups.h"
#include "parameters.h"
#include "plain.h"
#include "prefetch.h"

namespace lrfused {
namespace {

constexpr int64_t kAhead = 3;   // parameters at each stage
constexpr int64_t kStages = 5;  // after the first
constexpr int64_t kRing = 16;   // chains
static_assert(kRing > kStages * kAhead, "a chain is in use until its last stage");
constexpr int64_t kRun = 512;  // parameters that a thread takes at a time

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

constexpr const char* kBufferKey = "momentum_buffer";
const char* master_name(MasterForm master_form) {
  return master_form == MasterForm::whole ? "master" : "master_remainder";
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

// Most have one or two dimensions: a call of memcmp costs more.
bool same_sizes(const c10::TensorImpl* a, const c10::TensorImpl* b) {
  const auto x = a->sizes(), y = b->sizes();
  bool same = x.size() == y.size();
  for (size_t i = 0; same && i < x.size(); ++i) same = x[i] == y[i];
  return same;
}

bool same_order(const c10::TensorImpl* a, const c10::TensorImpl* b) {
  if (a->is_contiguous() && b->is_contiguous()) return true;
  return a->is_non_overlapping_and_dense() && a->strides() == b->strides();
}

// One parameter's chain, as far as it has been followed.
struct Chain {
  Tensors tensors;
  PyObject *state, *grad, *buffer, *master;  // the gradient's is null if Python has not seen it
  int32_t group;
  Kind kind;
};

// Return whether a stream has elements at addresses that are no multiples of their size.
bool misaligned(const Slot& s) {
  const auto off = [](const void* p, int64_t size) {
    return reinterpret_cast<uintptr_t>(p) % static_cast<uintptr_t>(size) != 0;
  };
  const cuda::Sizes size = cuda::sizes_of(s.dtype, s.grad_dtype, s.master_form);
  return off(s.param, size.param) || off(s.grad, size.grad) || off(s.buffer, size.buffer) ||
         off(s.master, size.master);
}

Extent reach_of_object(PyObject* object) {
  return THPVariable_Check(object) ? reach_of(impl_of(object)) : Extent{0, 0};
}

class Reader {
 public:
  Reader(const Parameters& params, const std::vector<Group>& groups, MasterForm master_form,
         Found& found, Kind* kinds)
      : params_(params), groups_(groups), master_form_(master_form), found_(found), kinds_(kinds) {}

  // Returns false if the state is not in the order of the parameters.
  bool read(int64_t begin, int64_t end) {
    Chain ring[kRing];
    int32_t group = params_.group(begin);
    for (int64_t i = begin; i < end + kStages * kAhead; ++i) {
      if (i < end) {
        while (i >= params_.end(group)) ++group;
        if (!object(i, group, ring[i % kRing])) return false;
      }
      const auto stage = [&](int64_t number, auto run) {
        const int64_t j = i - number * kAhead;
        if (j >= begin && j < end) run(j, ring[j % kRing]);
      };
      stage(1, [&](int64_t, Chain& c) { impl(c); });
      stage(2, [&](int64_t, Chain& c) { meta(c); });
      stage(3, [&](int64_t, Chain& c) { gradient(c); });
      stage(4, [&](int64_t j, Chain& c) { storages(j, c); });
      stage(kStages, [&](int64_t j, Chain& c) { address(j, c); });
    }
    return true;
  }

  int64_t numel = 0, firsts = 0, others = 0;
  uint64_t marks = 0;

 private:
  bool object(int64_t i, int32_t group, Chain& c) const {
    PyObject* param = params_.param(i, group);
    c = {};
    c.tensors.object = param;
    c.group = group;
    prefetch_tensor(param);
    if (!params_.entry(i, param, c.state)) return false;
    if (c.state) prefetch_dict(c.state);
    return true;
  }

  void impl(Chain& c) const {
    if (!THPVariable_CheckExact(c.tensors.object)) {
      c.kind = Kind::odd;
      return;
    }
    c.tensors.param = impl_of(c.tensors.object);
    prefetch_impl(c.tensors.param);
    if (c.state && looks_up(c) && PyDict_CheckExact(c.state)) prefetch_keys(c.state);
  }

  void meta(Chain& c) const {
    if (c.kind == Kind::odd) return;
    // A subclass may define .grad itself, so Python reads it.
    if (c.tensors.param->key_set() != found_.keys) {
      c.kind = Kind::odd;
      return;
    }
    prefetch_meta(c.tensors.param->autograd_meta());
    prefetch_storage(c.tensors.param);
    if (!looks_up(c)) return;
    c.kind = find_own(c);
    for (PyObject* own : {c.buffer, c.master})
      if (own) prefetch_tensor(own);
  }

  // Return whether the step uses the parameter's state.
  bool looks_up(const Chain& c) const {
    return groups_[c.group].momentum || master_form_ != MasterForm::none;
  }

  // Find the buffer and the master in a parameter's state.
  Kind find_own(Chain& c) const {
    if (c.state == nullptr) return Kind::plain;
    if (!PyDict_CheckExact(c.state)) return Kind::odd;
    Py_ssize_t position = 0;
    PyObject *key, *value;
    while (PyDict_Next(c.state, &position, &key, &value)) {
      PyObject** own = nullptr;
      if (groups_[c.group].momentum && is_key(key, buffer_key(), kBufferKey))
        own = &c.buffer;
      else if (master_form_ != MasterForm::none &&
               is_key(key, master_key(master_form_), master_name(master_form_)))
        own = &c.master;
      if (own != nullptr && value != Py_None) *own = value;
    }
    return Kind::plain;
  }

  void gradient(Chain& c) const {
    Tensors& t = c.tensors;
    if (t.param == nullptr || t.param->key_set() != found_.keys) return;
    const auto* meta = static_cast<torch::autograd::AutogradMeta*>(t.param->autograd_meta());
    if (meta == nullptr || !meta->grad_.defined()) {
      c.kind = Kind::skip;
      return;
    }
    t.grad = meta->grad_.unsafeGetTensorImpl();
    prefetch_impl(t.grad);
    own_impl(c, c.buffer, t.buffer);
    own_impl(c, c.master, t.master);
  }

  // Go from an object of a parameter's state to its tensor.
  void own_impl(Chain& c, PyObject* object, c10::TensorImpl*& impl) const {
    if (object == nullptr) return;
    if (!THPVariable_CheckExact(object)) {
      c.kind = Kind::odd;
      return;
    }
    prefetch_impl(impl = impl_of(object));
  }

  // Return whether `other` has this dtype, and its elements in the memory order of `param`.
  bool beside(const c10::TensorImpl* other, at::ScalarType dtype,
              const c10::TensorImpl* param) const {
    return other->key_set() == found_.keys && other->dtype() == dtype && same_sizes(other, param) &&
           same_order(param, other) && (found_.on_cpu() || other->device() == param->device());
  }

  void storages(int64_t i, Chain& c) {
    if (c.kind != Kind::plain) return;
    const Tensors& t = c.tensors;
    Slot& slot = found_.slots[i];
    const auto dtype = c10::typeMetaToScalarType(t.param->dtype());
    const bool half = dtype == at::kHalf;
    slot.master_form = half || dtype == at::kBFloat16 ? master_form_ : MasterForm::none;
    const bool single = slot.master_form != MasterForm::none;
    const auto wide = single ? at::kFloat : dtype;
    const auto master = slot.master_form == MasterForm::whole ? at::kFloat : at::kShort;
    if (!dtype_of(t.param, slot.dtype) || (half && slot.master_form == MasterForm::remainder) ||
        !beside(t.param, dtype, t.param) ||
        !(beside(t.grad, dtype, t.param) || (single && beside(t.grad, wide, t.param))) ||
        (t.buffer && !beside(t.buffer, wide, t.param)) ||
        (single && t.master && !beside(t.master, master, t.param))) {
      c.kind = Kind::odd;
      return;
    }
    dtype_of(t.grad, slot.grad_dtype);
    c.grad = python_object(t.grad);
    if (c.grad) prefetch_tensor(c.grad);
    prefetch_storage(t.grad);
    if (t.buffer) prefetch_storage(t.buffer);
    if (t.master) prefetch_storage(t.master);
  }

  void address(int64_t i, Chain& c) {
    const Tensors& t = c.tensors;
    Slot& slot = found_.slots[i];
    if (c.kind == Kind::plain) {
      slot.numel = t.param->numel();
      if (!found_.on_cpu()) slot.device = t.param->device().index();
      slot.param = address_of(t.param);
      slot.grad = address_of(t.grad);
      slot.buffer = t.buffer ? address_of(t.buffer) : nullptr;
      slot.master = t.master ? address_of(t.master) : nullptr;
      if (slot.numel != 0 &&
          (!slot.param || !slot.grad || (t.buffer && !slot.buffer) || (t.master && !slot.master)))
        c.kind = Kind::odd;
      if (found_.aligned && misaligned(slot)) c.kind = Kind::odd;
      if (c.grad && !THPVariable_CheckExact(c.grad)) c.kind = Kind::odd;
      if (slot.numel != 0 && share_memory(slot)) c.kind = Kind::odd;
    }
    kinds_[i] = c.kind;
    slot.place = i;
    if (c.kind != Kind::plain) {
      found_.tensors[i].object = t.object;
      slot.group = c.group;
      if (c.kind == Kind::odd) marks += mark_of(reach_of_object(t.object));
      ++others;
      return;
    }
    slot.group = c.group;
    slot.mode = !groups_[c.group].momentum ? MomentumMode::none
                : t.buffer                 ? MomentumMode::next
                                           : MomentumMode::first;
    firsts +=
        slot.mode == MomentumMode::first || (slot.master_form != MasterForm::none && !t.master);
    numel += slot.numel;
    marks += mark_of(slot);
    found_.tensors[i] = t;
    found_.tensors[i].version = version_of(t.param);
    if (t.buffer) found_.tensors[i].buffer_version = version_of(t.buffer);
  }

  const Parameters& params_;
  const std::vector<Group>& groups_;
  const MasterForm master_form_;
  Found& found_;
  Kind* kinds_;
};

// Return whether no two parameters are written in the same memory. Odd ones are updated after all
// slots, so they count too.
bool are_apart(const Found& found, const Kind* kinds, uint64_t marks) {
  static thread_local KnownApart known;
  if (known.has(marks)) return true;
  static thread_local std::vector<Extent> written;
  written.clear();
  bool any = false;
  for (const auto i : c10::irange(found.slots.size())) {
    const Slot& s = found.slots[i];
    any |= kinds[i] == Kind::plain;
    if (kinds[i] == Kind::odd) {
      const Extent reach = reach_of_object(found.tensors[i].object);
      if (reach.end > reach.begin) written.push_back(reach);
    }
    if (kinds[i] != Kind::plain || s.numel == 0) continue;
    const cuda::Sizes size = cuda::sizes_of(s.dtype, s.grad_dtype, s.master_form);
    written.push_back(extent_of(s.param, s.numel, size.param));
    if (s.buffer) written.push_back(extent_of(s.buffer, s.numel, size.buffer));
    if (s.master) written.push_back(extent_of(s.master, s.numel, size.master));
  }
  const bool apart = !any || are_apart(written);  // odd ones are updated in order
  if (apart) known.add(marks);
  return apart;
}

// Move parameters that are not plain out of the slots, or all of them.
void separate(Found& found, const Kind* kinds, bool all) {
  int64_t plain = 0;
  for (const auto i : c10::irange(found.slots.size())) {
    const bool odd = kinds[i] == Kind::odd || (kinds[i] == Kind::plain && all);
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

PyObject* master_key(MasterForm master_form) {
  static PyObject* const whole = interned(master_name(MasterForm::whole));
  static PyObject* const remainder = interned(master_name(MasterForm::remainder));
  return master_form == MasterForm::whole ? whole : remainder;
}

void gather(const py::list& groups, const py::dict& state, const double* cells, double inv_scale,
            c10::DeviceType device, MasterForm master_form, Found& found) {
  static thread_local std::vector<Kind> kinds;
  found.keys = plain_keys(device);
  buffer_key();  // interned here, where this thread has the GIL
  master_key(master_form);
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
  std::atomic<int64_t> numel, firsts, others;
  std::atomic<uint64_t> marks;
  std::atomic<bool> in_order;
  static thread_local Pace pace;
  const auto read = [&] {
    numel = firsts = others = 0;
    marks = 0;
    in_order = true;
    parallel((count + kRun - 1) / kRun, {count * kTensorCost, 0}, pace, [&](int64_t run) {
      Reader reader(params, found.groups, master_form, found, kind);
      if (!reader.read(kRun * run, std::min(kRun * (run + 1), count))) in_order = false;
      numel += reader.numel;
      firsts += reader.firsts;
      others += reader.others;
      marks += reader.marks;
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
  const bool all_odd = !found.valid || refuses_plain() || !are_apart(found, kind, marks);
  if (others > 0 || all_odd) separate(found, kind, all_odd);
  if (all_odd) found.numel = found.firsts = 0;
}

Held hold(const Found& found) {
  Held held;
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
