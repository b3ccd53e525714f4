// Packing slots into the bytes of tables: cuda/table.h.
#pragma once

#include <algorithm>
#include <vector>

#include "../cuda/launch.h"

namespace lrfused {

// A table and its bytes; the caller sets table.bytes to where the kernel reads them.
template <class T>
struct PackedTable {
  std::vector<char> bytes;
  T table{};
  uint32_t items = 0;
  int only = cuda::kMixed;  // the kind of all its tensors
};

cuda::Row row_of(const Group& group, int32_t momentum_cell);

PackedTable<cuda::Table> pack(const std::vector<cuda::Row>& rows, const Slot* const* slots,
                              size_t count);

// Return an entry for each parameter, an empty one where it has no gradient.
std::vector<cuda::Gradient> gradients_of(const std::vector<Slot>& slots, int64_t places);
PackedTable<cuda::Gradients> pack(const cuda::Gradient* gradients, size_t count);

// Return how many tensors fit into `room` bytes, given the table's size for 0 and for 1.
constexpr size_t fit(size_t room, size_t empty, size_t single) {
  return (room - std::min(room, empty)) / (single - empty);
}

}  // namespace lrfused
