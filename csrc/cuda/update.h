// What one lane of a warp does with an item: the loop around sgd.h.
#pragma once

#include <type_traits>

#include "../sgd.h"
#include "table.h"
#include "vector.h"

namespace lrfused::cuda {

// The parts of an update, known when it is made; all lanes of a warp agree on them. A scale of 1 is
// multiplied too: it changes nothing, and memory is what the loop waits for.
struct Moving {
  static constexpr bool scale = true;
  bool decay, nesterov;
  Buffer buffer;
};
struct Still {
  static constexpr bool scale = true, nesterov = false;
  static constexpr Buffer buffer = Buffer::none;
  bool decay;
};

// A lane has `Ahead` vectors of a stream under way.
template <class T, int Ahead, class P>
struct Lane {
  static constexpr bool kMomentum = !std::is_same_v<P, Still>;
  static constexpr int kStride = int(kLanes * kVector);  // bytes from a lane's vector to its next

  const Hyper<opmath_t<T>>& hyper;
  P parts;

  LRFUSED_HD void singles(const Entry& entry, Singles range, int64_t lane) const {
    T* param = reinterpret_cast<T*>(entry.param);
    const T* grad = reinterpret_cast<const T*>(entry.grad);
    T* buffer = reinterpret_cast<T*>(entry.buffer);
    LRFUSED_ROLLED
    for (int64_t i = range.begin + lane; i < range.end; i += kLanes) {
      T unused;
      sgd<T, true>(param[i], grad[i], kMomentum ? buffer[i] : unused, hyper, parts);
    }
  }

  // Update n vectors. A shifted gradient's address is that of the left of two that it lies in.
  template <int n, bool Shifted>
  LRFUSED_HD void vectors(uint64_t param, uint64_t grad, uint64_t buffer, int64_t shift) const {
    Words ps[n], gs[n], ms[n] = {};
    LRFUSED_UNROLLED
    for (int i = 0; i < n; ++i) {
      gs[i] = load(grad + i * kStride);
      if (Shifted) gs[i] = join(gs[i], load(grad + i * kStride + kVector), shift);
      ps[i] = load(param + i * kStride);
      if (kMomentum && parts.buffer == Buffer::next) ms[i] = load(buffer + i * kStride);
    }
    LRFUSED_UNROLLED
    for (int i = 0; i < n; ++i) {
      Vector<T> p = elements<T>(ps[i]), m{};
      const Vector<T> g = elements<T>(gs[i]);
      if (kMomentum) m = elements<T>(ms[i]);
      LRFUSED_UNROLLED
      for (int k = 0; k < kVector / int(sizeof(T)); ++k)
        sgd<T, true>(p.x[k], g.x[k], m.x[k], hyper, parts);
      store(param + i * kStride, words(p));
      if (kMomentum) store(buffer + i * kStride, words(m));
    }
  }

  template <int n, bool Shifted>
  LRFUSED_HD void body(uint64_t param, uint64_t grad, uint64_t buffer, int64_t shift,
                       int left) const {
    LRFUSED_ROLLED
    for (; left > (n - 1) * int(kLanes); left -= n * int(kLanes)) {
      vectors<n, Shifted>(param, grad, buffer, shift);
      param += n * kStride;
      grad += n * kStride;
      if (kMomentum) buffer += n * kStride;
    }
    if (n > 1 && left > 0) body<1, Shifted>(param, grad, buffer, shift, left);
  }

  LRFUSED_HD void item(const Entry& entry, const Layout& layout, const Item& t,
                       int64_t lane) const {
    singles(entry, t.head, lane);
    singles(entry, t.tail, lane);
    const int64_t at = layout.head * int64_t(sizeof(T)) + (t.first + lane) * kVector;
    const int left = int(t.last - t.first - lane);
    const uint64_t grad = entry.grad + at - layout.shift;
    if (layout.shift == 0)
      body<Ahead, false>(entry.param + at, grad, entry.buffer + at, 0, left);
    else
      body<1, true>(entry.param + at, grad, entry.buffer + at, layout.shift, left);
  }
};

// The numbers of one step that all items share.
struct Common {
  const double* cells;
  double inv_scale;  // what GradScaler wants gradients multiplied by
};

template <class T, int Ahead>
LRFUSED_HD void update(const Table& table, const Common& common, const Entry& entry, int64_t k,
                       int64_t lane) {
  using M = opmath_t<T>;
  const Row& row = table.row(entry.group);
  const double momentum = row.momentum_cell < 0 ? row.momentum : common.cells[row.momentum_cell];
  const Hyper<M> hyper{M(row.maximize ? -common.inv_scale : common.inv_scale), M(row.weight_decay),
                       M(momentum), M(row.undamped), M(-common.cells[2 * int64_t(entry.group)])};
  const Layout layout = layout_of(entry.param, entry.grad, entry.buffer, entry.numel, sizeof(T));
  const Item item = item_of(layout, k);
  // A cycle of momentum may pass through 0.
  const Buffer mode = momentum == 0 ? Buffer::none : Buffer(entry.mode);
  const bool decay = row.weight_decay != 0;
  if (mode == Buffer::none)
    Lane<T, Ahead, Still>{hyper, {decay}}.item(entry, layout, item, lane);
  else
    Lane<T, Ahead, Moving>{hyper, {decay, row.nesterov != 0, mode}}.item(entry, layout, item, lane);
}

// Update one lane's part of one item. `Only` is the table's one dtype, or kMixed.
template <int Only>
LRFUSED_HD void update_item(const Table& table, const Common& common, uint32_t item, int64_t lane) {
  constexpr int kAhead = Only == kMixed ? 1 : 2;  // all dtypes at once take more registers
  const int32_t i = table.tensor_of(item);
  const Entry& entry = table.entry(i);
  const int64_t k = item - table.first()[i];
  const DType dtype = Only == kMixed ? DType(entry.dtype) : DType(Only);
  switch (dtype) {
    case DType::float32:
      return update<float, kAhead>(table, common, entry, k, lane);
    case DType::float64:
      return update<double, kAhead>(table, common, entry, k, lane);
    case DType::bfloat16:
      return update<bfloat16, kAhead>(table, common, entry, k, lane);
    default:
      return update<float16, kAhead>(table, common, entry, k, lane);
  }
}

}  // namespace lrfused::cuda
