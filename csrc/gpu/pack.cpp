#include "pack.h"

#include <c10/util/irange.h>

#include <cstring>

#include "../cuda/norm.h"

namespace lrfused {
namespace {

uint64_t address(const void* p) { return reinterpret_cast<uint64_t>(p); }

cuda::Entry entry_of(const Slot& s) {
  return {address(s.param),
          address(s.grad),
          address(s.buffer),
          static_cast<uint64_t>(s.numel),
          static_cast<uint64_t>(s.group),
          static_cast<uint64_t>(s.mode),
          static_cast<uint64_t>(s.dtype),
          static_cast<uint64_t>(s.master_form),
          s.grad_dtype != s.dtype};
}

// Put a value at an address, and move that past it.
template <class T>
void put(char*& to, const T& value) {
  memcpy(to, &value, sizeof(value));
  to += sizeof(value);
}

// Put each tensor's first item, then the number of items, which is returned.
template <class Items>
uint32_t put_firsts(char* to, size_t count, Items items_of) {
  uint32_t first = 0;
  put(to, first);
  for (const auto i : c10::irange(count)) put(to, first += static_cast<uint32_t>(items_of(i)));
  return first;
}

}  // namespace

cuda::Row row_of(const Group& group, int32_t momentum_cell) {
  const Hyper<double>& h = group.hypers.fp64;
  return {h.weight_decay, h.momentum,        h.one_minus_dampening,
          momentum_cell,  h.grad_factor < 0, group.nesterov};
}

PackedTable<cuda::Table> pack(const std::vector<cuda::Row>& rows, const Slot* const* slots,
                              size_t count) {
  const auto kind = [&](size_t i) { return cuda::kind_of(slots[i]->dtype, slots[i]->master_form); };
  PackedTable<cuda::Table> packed;
  packed.only = count ? kind(0) : cuda::kMixed;
  bool masters = false;
  for (const auto i : c10::irange(count)) {
    masters |= slots[i]->master_form != MasterForm::none;
    if (kind(i) != packed.only) packed.only = cuda::kMixed;
  }
  packed.table = {nullptr, static_cast<int32_t>(rows.size()), static_cast<int32_t>(count), masters};
  packed.bytes.resize(packed.table.size());
  char* to = packed.bytes.data();
  for (const cuda::Row& row : rows) put(to, row);
  for (const auto i : c10::irange(count)) put(to, entry_of(*slots[i]));
  for (size_t i = 0; masters && i < count; ++i) put(to, address(slots[i]->master));
  packed.items = put_firsts(to, count, [&](size_t i) {
    const Slot& s = *slots[i];
    const cuda::Streams at{address(s.param), address(s.grad), address(s.buffer), address(s.master)};
    return items_of(layout_of(at, s.numel, cuda::sizes_of(s.dtype, s.grad_dtype, s.master_form)));
  });
  return packed;
}

std::vector<cuda::Gradient> gradients_of(const std::vector<Slot>& slots, int64_t places) {
  std::vector<cuda::Gradient> gradients(places);
  for (const Slot& s : slots)
    gradients[s.place] = {address(s.grad), static_cast<uint64_t>(s.numel),
                          static_cast<uint64_t>(s.grad_dtype), s.master_form != MasterForm::none};
  return gradients;
}

PackedTable<cuda::Gradients> pack(const cuda::Gradient* gradients, size_t count) {
  PackedTable<cuda::Gradients> packed;
  packed.table = {nullptr, static_cast<int32_t>(count)};
  packed.bytes.resize(packed.table.size());
  char* to = packed.bytes.data();
  for (const auto i : c10::irange(count)) put(to, gradients[i]);
  packed.items =
      put_firsts(to, count, [&](size_t i) { return cuda::pieces_of(gradients[i].numel); });
  return packed;
}

}  // namespace lrfused
