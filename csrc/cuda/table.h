// The tables of launches, as bytes: a row for each group, an entry for each tensor, first items.
//
// Bytes that fit are in the kernel's own argument: that needs no copy and stays with a captured
// graph. Others are in device memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "../sgd.h"
#include "../slot.h"
#include "items.h"

namespace lrfused::cuda {

// A group's hyper-parameters, without its rate, which is in cell 2 g.
struct Row {
  double weight_decay, momentum, one_minus_dampening;
  int32_t momentum_cell;  // the cell of a momentum that a schedule moves, or -1
  uint8_t maximize, nesterov;
};
static_assert(sizeof(Row) == 32);

struct Entry {
  uint64_t param, grad, buffer;  // addresses; Table::master has the master's
  uint64_t numel : 40, group : 16, mode : 2, dtype : 2, master_form : 2, grad_is_wide : 1;
};
static_assert(sizeof(Entry) == 32);

// Return the tensor of item `item` of `items`; first[i] is tensor i's first item.
LRFUSED_HD int32_t tensor_of(const uint32_t* first, int32_t count, uint32_t items, uint32_t item) {
  if (items == uint32_t(count)) return int32_t(item);  // each tensor has one item
  int32_t low = 0, high = count;
  while (high - low > 1) {
    const int32_t middle = (low + high) / 2;
    if (first[middle] <= item)
      low = middle;
    else
      high = middle;
  }
  return low;
}

// The update's table: rows, entries, masters' addresses if there are `masters`, first items.
struct Table {
  const char* bytes;
  int32_t groups, count;
  bool masters;

  LRFUSED_HD const Row& row(int64_t g) const { return reinterpret_cast<const Row*>(bytes)[g]; }
  LRFUSED_HD const Entry& entry(int64_t i) const {
    return reinterpret_cast<const Entry*>(bytes + groups * sizeof(Row))[i];
  }
  LRFUSED_HD uint64_t master(int64_t i) const {
    if (!masters) return 0;
    return reinterpret_cast<const uint64_t*>(bytes + groups * sizeof(Row) +
                                             count * sizeof(Entry))[i];
  }
  // first()[i] is tensor i's first item, first()[count] the number of items.
  LRFUSED_HD const uint32_t* first() const {
    const size_t each = sizeof(Entry) + (masters ? sizeof(uint64_t) : 0);
    return reinterpret_cast<const uint32_t*>(bytes + groups * sizeof(Row) + count * each);
  }
  static constexpr size_t size(size_t groups, size_t count, bool masters) {
    return groups * sizeof(Row) + count * (sizeof(Entry) + (masters ? sizeof(uint64_t) : 0)) +
           (count + 1) * sizeof(uint32_t);
  }
  size_t size() const { return size(groups, count, masters); }
};

// The norm's entry for a parameter; without a gradient it has 0 elements.
struct Gradient {
  uint64_t address;
  uint64_t numel : 40, dtype : 2, single : 1;  // single: unscaled in fp32, for a master
};
static_assert(sizeof(Gradient) == 16);

// The norm's table: gradients, in the order of the parameters, and first pieces.
struct Gradients {
  const char* bytes;
  int32_t count;

  LRFUSED_HD const Gradient& entry(int64_t i) const {
    return reinterpret_cast<const Gradient*>(bytes)[i];
  }
  LRFUSED_HD const uint32_t* first() const {
    return reinterpret_cast<const uint32_t*>(bytes + count * sizeof(Gradient));
  }
  static constexpr size_t size(size_t count) {
    return count * sizeof(Gradient) + (count + 1) * sizeof(uint32_t);
  }
  size_t size() const { return size(count); }
};

// The kind of a tensor: its dtype, and the form of its master. kMixed: there are several kinds.
constexpr int kMixed = -1;
LRFUSED_HD constexpr int kind_of(DType dtype, MasterForm master_form) {
  return int(dtype) + 4 * int(master_form);
}
constexpr int kFloat32 = kind_of(DType::float32, MasterForm::none);
constexpr int kFloat64 = kind_of(DType::float64, MasterForm::none);
constexpr int kBFloat16 = kind_of(DType::bfloat16, MasterForm::none);
constexpr int kFloat16 = kind_of(DType::float16, MasterForm::none);
constexpr int kBFloat16Whole = kind_of(DType::bfloat16, MasterForm::whole);
constexpr int kFloat16Whole = kind_of(DType::float16, MasterForm::whole);
constexpr int kBFloat16Remainder = kind_of(DType::bfloat16, MasterForm::remainder);

// Call `run` with `only` as a type.
template <class Run>
auto with_kind(int only, const Run& run) {
  switch (only) {
    case kFloat32:
      return run(std::integral_constant<int, kFloat32>());
    case kFloat64:
      return run(std::integral_constant<int, kFloat64>());
    case kBFloat16:
      return run(std::integral_constant<int, kBFloat16>());
    case kFloat16:
      return run(std::integral_constant<int, kFloat16>());
    case kBFloat16Whole:
      return run(std::integral_constant<int, kBFloat16Whole>());
    case kFloat16Whole:
      return run(std::integral_constant<int, kFloat16Whole>());
    case kBFloat16Remainder:
      return run(std::integral_constant<int, kBFloat16Remainder>());
    default:
      return run(std::integral_constant<int, kMixed>());
  }
}
constexpr int kKinds[] = {kMixed,   kFloat32,       kFloat64,      kBFloat16,
                          kFloat16, kBFloat16Whole, kFloat16Whole, kBFloat16Remainder};

}  // namespace lrfused::cuda
