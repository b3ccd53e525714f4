// Cutting tensors into items, and items into the elements of each lane. No address is outside a
// tensor.
//
// An item is a piece of one tensor, updated by one warp. The body of an item consists of vectors,
// whose addresses in the written streams are multiples of the vector's size: 16 bytes in the widest
// stream. The head and the tail, fewer elements than a warp has lanes, are updated one by one. A
// gradient may have another alignment: then a vector is joined from two neighbours, both within the
// tensor.
#pragma once

#include <cstdint>

#include "../slot.h"

namespace lrfused::cuda {

constexpr int64_t kVector = 16;        // bytes
constexpr int64_t kItemVectors = 512;  // 2 K elements of fp32, 4 K of bf16
constexpr int64_t kLanes = 32;         // of a warp

// Addresses of a tensor's streams, or 0.
struct Streams {
  uint64_t param, grad, buffer, master;
};

// The bytes of an element of each stream, and the elements of a vector.
struct Sizes {
  int64_t param, grad, buffer, master, width;
};

LRFUSED_HD constexpr Sizes sizes_of(DType dtype, DType grad, MasterForm master_form) {
  const int64_t size = itemsize(dtype);
  if (master_form == MasterForm::none) return {size, size, size, size, kVector / size};
  return {size, itemsize(grad), 4, master_form == MasterForm::whole ? 4 : 2, kVector / 4};
}

// The cut of a tensor of `numel` elements.
struct Layout {
  int64_t numel, width;  // elements of the tensor; of a vector
  int64_t head;          // elements before the first vector
  int64_t vectors;
  int64_t shift;  // elements from a multiple of a vector's size to the gradient's vector
  bool wide;      // whether there are vectors at all
};

// Return how many elements an address is behind a multiple of a vector's size. The address is a
// multiple of an element's size.
LRFUSED_HD int64_t phase(uint64_t address, int64_t itemsize, int64_t width) {
  return int64_t(address / uint64_t(itemsize) % uint64_t(width));
}

LRFUSED_HD Layout layout_of(const Streams& at, int64_t numel, const Sizes& size) {
  const int64_t width = size.width, own = phase(at.param, size.param, width);
  if ((at.buffer != 0 && phase(at.buffer, size.buffer, width) != own) ||
      (at.master != 0 && phase(at.master, size.master, width) != own))
    return {numel, width, numel, 0, 0, false};
  int64_t head = (width - own) % width;
  const int64_t shift = (phase(at.grad, size.grad, width) + head) % width;
  if (head < shift) head += width;  // the left neighbour must be within the tensor
  if (head > numel) head = numel;
  int64_t vectors = (numel - head) / width;
  const int64_t behind = numel - head - vectors * width;
  if (shift != 0 && vectors != 0 && width - shift > behind) --vectors;  // and the right one, too
  return {numel, width, head, vectors, shift, true};
}

LRFUSED_HD int64_t items_of(const Layout& t) {
  const int64_t size = t.wide ? t.vectors : t.numel;
  const int64_t item = t.wide ? kItemVectors : kItemVectors * t.width;
  return size <= item ? 1 : (size + item - 1) / item;
}

// Elements [begin, end), of which lane l touches begin + l, begin + l + 32, ...
struct Singles {
  int64_t begin, end;
};

struct Item {
  Singles head, tail;
  int64_t first, last;  // vectors [first, last), distributed over lanes in the same way
};

LRFUSED_HD Item item_of(const Layout& t, int64_t k) {
  if (!t.wide) {
    const int64_t begin = k * kItemVectors * t.width, end = begin + kItemVectors * t.width;
    return {{begin, end < t.numel ? end : t.numel}, {0, 0}, 0, 0};
  }
  const int64_t first = k * kItemVectors;
  const bool ends = t.vectors - first <= kItemVectors;
  const int64_t last = ends ? t.vectors : first + kItemVectors;
  const int64_t behind = t.head + t.vectors * t.width;
  return {{0, k == 0 ? t.head : 0}, {behind, ends ? t.numel : behind}, first, last};
}

}  // namespace lrfused::cuda
