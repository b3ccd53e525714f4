// Whether the memory that a step writes is apart: where parameters share some, torch updates one
// after the other. To compare all addresses takes longer than a small step, so a step asks whether
// its sum of marks is one of those found apart before; equal sums are taken as proof.
//
// A gradient in the memory of another parameter is not looked for.
#pragma once

#include <c10/core/TensorImpl.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "cuda/items.h"
#include "slot.h"

namespace lrfused {

// [begin, end)
struct Extent {
  uintptr_t begin, end;
};

inline Extent extent_of(const void* stream, int64_t numel, int64_t itemsize) {
  const auto begin = reinterpret_cast<uintptr_t>(stream);
  return {begin, begin + static_cast<uintptr_t>(numel * itemsize)};
}
// Return whether two streams have no byte in common. One that is null has no bytes.
inline bool are_apart(const void* a, int64_t a_bytes, const void* b, int64_t b_bytes) {
  const auto x = reinterpret_cast<uintptr_t>(a), y = reinterpret_cast<uintptr_t>(b);
  return y - x >= static_cast<uintptr_t>(a_bytes) && x - y >= static_cast<uintptr_t>(b_bytes);
}

inline bool are_apart(std::vector<Extent>& streams) {
  std::sort(streams.begin(), streams.end(),
            [](const Extent& a, const Extent& b) { return a.begin < b.begin; });
  for (size_t i = 1; i < streams.size(); ++i)
    if (streams[i].begin < streams[i - 1].end) return false;
  return true;
}

// Return the memory from a tensor's first element to its last, with the gaps between; none for
// one without memory of its own.
inline Extent reach_of(const c10::TensorImpl* t) {
  if (t->is_python_dispatch() || !t->has_storage() || t->numel() == 0) return {0, 0};
  auto* storage = t->unsafe_storage().unsafeGetStorageImpl();
  const auto begin = reinterpret_cast<uintptr_t>(storage->_mutable_data_ptr_no_checks().get());
  if (begin == 0) return {0, 0};
  int64_t last = t->storage_offset();
  for (int64_t d = 0; d < t->dim(); ++d) last += (t->size(d) - 1) * t->stride(d);
  const auto itemsize = static_cast<uintptr_t>(t->itemsize());
  return {begin + static_cast<uintptr_t>(t->storage_offset()) * itemsize,
          begin + static_cast<uintptr_t>(last + 1) * itemsize};
}

// Return whether a stream that is written shares memory with another one. The gradient may be the
// parameter itself, as each element is read before it is written; torch decays the buffer first.
inline bool share_memory(const Slot& s) {
  const cuda::Sizes size = cuda::sizes_of(s.dtype, s.grad_dtype, s.master_form);
  const int64_t param = s.numel * size.param, grad = s.numel * size.grad;
  const int64_t buffer = s.buffer ? s.numel * size.buffer : 0, master = s.numel * size.master;
  const bool same = s.param == s.grad && s.dtype == s.grad_dtype;
  const bool apart = (same || are_apart(s.param, param, s.grad, grad)) &&
                     are_apart(s.param, param, s.buffer, buffer) &&
                     are_apart(s.grad, grad, s.buffer, buffer) &&
                     (s.master == nullptr || (are_apart(s.master, master, s.param, param) &&
                                              are_apart(s.master, master, s.grad, grad) &&
                                              are_apart(s.master, master, s.buffer, buffer)));
  return !apart;
}

inline uint64_t mixed(uint64_t x) {
  x = (x ^ x >> 32) * 0xd6e8feb86659fd93;
  x = (x ^ x >> 32) * 0xd6e8feb86659fd93;  // after one, sums of marks collide in practice
  return x ^ x >> 32;
}
// Return a number for the memory that a slot writes: its addresses, and all that says how far it
// goes.
inline uint64_t mark_of(const Slot& s) {
  const auto at = [](const void* p) { return uint64_t(reinterpret_cast<uintptr_t>(p)); };
  const uint64_t size = uint64_t(s.numel) << 8 | uint64_t(s.dtype) << 4 | uint64_t(s.master_form);
  return mixed(at(s.param) + 0x9e3779b97f4a7c15 * at(s.buffer) + 0xc2b2ae3d27d4eb4f * at(s.master) +
               0x165667b19e3779f9 * size);
}
inline uint64_t mark_of(const Extent& e) {
  return mixed(e.begin + 0x9e3779b97f4a7c15 * (e.end - e.begin) + 1);
}

// The sums of marks that were last found apart, of some optimizers that take turns.
class KnownApart {
 public:
  bool has(uint64_t sum) const { return std::find(sums_.begin(), sums_.end(), sum) != sums_.end(); }
  void add(uint64_t sum) { sums_[next_++ % sums_.size()] = sum; }

 private:
  std::array<uint64_t, 8> sums_{};  // 0: of no slots
  size_t next_ = 0;
};

}  // namespace lrfused
