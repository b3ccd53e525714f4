// From slots to the bytes of tables: cuda/table.h.
#pragma once

#include <algorithm>
#include <vector>

#include "../cuda/launch.h"

namespace lrfused {

// A table, and its bytes, to which it does not point yet.
template <class T>
struct Packed {
  std::vector<char> bytes;
  T table{};
  uint32_t items = 0;
  int only = cuda::kMixed;  // what all its tensors are
};

cuda::Row row_of(const Group& group, int32_t momentum_cell);

Packed<cuda::Table> pack(const std::vector<cuda::Row>& rows, const Slot* const* slots,
                         size_t count);

// The gradients of all parameters, of which those that have one are slots.
std::vector<cuda::Gradient> gradients_of(const std::vector<Slot>& slots, int64_t places);
Packed<cuda::Gradients> pack(const cuda::Gradient* gradients, size_t count);

// How many tensors a table of at most `room` bytes holds, of which none takes `empty` bytes and one
// `single`.
constexpr size_t fit(size_t room, size_t empty, size_t single) {
  return (room - std::min(room, empty)) / (single - empty);
}

}  // namespace lrfused
