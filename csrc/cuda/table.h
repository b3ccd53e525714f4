// What a launch updates, as bytes: a row for each group, an entry for each tensor, first items.
//
// The bytes are the kernel's own argument where they fit, which needs no copy and stays with a
// captured graph; else they lie in device memory.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../sgd.h"
#include "../step.h"
#include "items.h"

namespace lrfused::cuda {

// A group's hyper-parameters as the host knows them. Its rate is in cell 2 g.
struct Row {
  double weight_decay, momentum, undamped;
  int32_t momentum_cell;  // of a momentum that a schedule moves, or -1
  uint8_t maximize, nesterov;
};
static_assert(sizeof(Row) == 32);

struct Entry {
  uint64_t param, grad, buffer;  // addresses
  uint64_t numel : 44, group : 16, mode : 2, dtype : 2;
};
static_assert(sizeof(Entry) == 32);

struct Table {
  const char* bytes;
  int32_t groups, count;

  LRFUSED_HD const Row& row(int64_t g) const { return reinterpret_cast<const Row*>(bytes)[g]; }
  LRFUSED_HD const Entry& entry(int64_t i) const {
    return reinterpret_cast<const Entry*>(bytes + groups * sizeof(Row))[i];
  }
  // first()[i] is tensor i's first item, first()[count] the number of items.
  LRFUSED_HD const uint32_t* first() const {
    return reinterpret_cast<const uint32_t*>(bytes + groups * sizeof(Row) + count * sizeof(Entry));
  }
  LRFUSED_HD uint32_t items() const { return first()[count]; }

  LRFUSED_HD int32_t tensor_of(uint32_t item) const {
    int32_t low = 0, high = count;
    while (high - low > 1) {
      const int32_t middle = (low + high) / 2;
      if (first()[middle] <= item)
        low = middle;
      else
        high = middle;
    }
    return low;
  }
};

constexpr int kMixed = -1;  // in the place of a table's one dtype

constexpr size_t size_of(size_t groups, size_t count) {
  return groups * sizeof(Row) + count * sizeof(Entry) + (count + 1) * sizeof(uint32_t);
}

LRFUSED_HD Layout layout_of(const Entry& e) {
  return layout_of(e.param, e.grad, e.buffer, e.numel, itemsize(DType(e.dtype)));
}

}  // namespace lrfused::cuda
