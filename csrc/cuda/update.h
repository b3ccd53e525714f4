// The work of one lane of a warp on an item: the loop around sgd.h.
#pragma once

#include <type_traits>

#include "../master.h"
#include "../sgd.h"
#include "table.h"
#include "vector.h"

namespace lrfused::cuda {

// Run-time flags of an update (sgd.h's UpdateFlags), the same in all lanes of a warp. A scale and a
// clipping coefficient of 1 are multiplied, too: that changes nothing, and the loop waits for
// memory.
struct Moving {
  static constexpr bool scale = true;
  bool decay, nesterov;
  MomentumMode mode;
};
struct Still {
  static constexpr bool scale = true, nesterov = false;
  static constexpr MomentumMode mode = MomentumMode::none;
  bool decay;
};

// A parameter without a master: all streams are of T.
template <class T>
struct Plain {
  using Param = T;
  using Grad = T;
  using Buffer = T;
  using Master = T;  // not used
  static constexpr MasterForm master_form = MasterForm::none;
  static constexpr bool reads_param = true;
  static constexpr int width = int(kVector / sizeof(T));

  template <class H, class Flags>
  LRFUSED_HD static void update(T& param, T grad, T& buffer, T&, const H& hyper,
                                const Flags& flags) {
    sgd<T, true, true>(param, grad, buffer, hyper, flags);
  }
};

// A 16-bit parameter whose fp32 master is kept whole: the parameter is only written.
template <class T, class G>
struct Whole {
  using Param = T;
  using Grad = G;
  using Buffer = float;
  using Master = float;
  static constexpr MasterForm master_form = MasterForm::whole;
  static constexpr bool reads_param = false;
  static constexpr int width = int(kVector / sizeof(float));

  template <class H, class Flags>
  LRFUSED_HD static void update(T& param, G grad, float& buffer, float& master, const H& hyper,
                                const Flags& flags) {
    sgd<float, true, true>(master, widen(grad), buffer, hyper, flags);
    param = narrow<T>(master);
  }
};

// A bfloat16 parameter whose fp32 master is kept as a 16-bit remainder.
template <class G>
struct Remainder {
  using Param = bfloat16;
  using Grad = G;
  using Buffer = float;
  using Master = int16_t;
  static constexpr MasterForm master_form = MasterForm::remainder;
  static constexpr bool reads_param = true;
  static constexpr int width = int(kVector / sizeof(float));

  template <class H, class Flags>
  LRFUSED_HD static void update(bfloat16& param, G grad, float& buffer, int16_t& remainder,
                                const H& hyper, const Flags& flags) {
    float master = lrfused::join(param, remainder);
    sgd<float, true, true>(master, widen(grad), buffer, hyper, flags);
    split(master, param, remainder);
  }
};

// The loop of a lane, with `Ahead` vectors of each stream in flight.
template <class F, int Ahead, class Flags>
struct Lane {
  using Param = typename F::Param;
  using Grad = typename F::Grad;
  using Buffer = typename F::Buffer;
  using Master = typename F::Master;
  static constexpr bool kMomentum = !std::is_same_v<Flags, Still>;
  static constexpr bool kMaster = F::master_form != MasterForm::none;
  static constexpr int kWidth = F::width;
  static constexpr int kStride = int(kLanes) * kWidth;  // from a lane's vector to its next

  const Hyper<opmath_t<Buffer>>& hyper;
  Flags flags;

  // Advance the addresses by n elements.
  LRFUSED_HD static void move(Streams& at, int64_t n) {
    at.param += n * int64_t(sizeof(Param));
    at.grad += n * int64_t(sizeof(Grad));
    if (kMomentum) at.buffer += n * int64_t(sizeof(Buffer));
    if (kMaster) at.master += n * int64_t(sizeof(Master));
  }

  LRFUSED_HD void singles(const Streams& at, Singles range, int64_t lane) const {
    Param* param = reinterpret_cast<Param*>(at.param);
    const Grad* grad = reinterpret_cast<const Grad*>(at.grad);
    Buffer* buffer = reinterpret_cast<Buffer*>(at.buffer);
    Master* master = reinterpret_cast<Master*>(at.master);
    LRFUSED_ROLLED
    for (int64_t i = range.begin + lane; i < range.end; i += kLanes) {
      Buffer no_buffer;
      Master no_master;
      F::update(param[i], grad[i], kMomentum ? buffer[i] : no_buffer,
                kMaster ? master[i] : no_master, hyper, flags);
    }
  }

  // Update n vectors. A shifted gradient is in two vectors; its address is the left one's.
  template <int n, bool Shifted>
  LRFUSED_HD void vectors(const Streams& at, int64_t shift) const {
    constexpr int kGrads = int(sizeof(WordsOf<Grad, kWidth>));
    WordsOf<Param, kWidth> ps[n] = {};
    WordsOf<Grad, kWidth> gs[n];
    WordsOf<Buffer, kWidth> ms[n] = {};
    WordsOf<Master, kWidth> ks[n] = {};
    LRFUSED_UNROLLED
    for (int i = 0; i < n; ++i) {
      Streams to = at;
      move(to, i * kStride);
      gs[i] = load<kGrads / 4>(to.grad);
      if (Shifted) gs[i] = join(gs[i], load<kGrads / 4>(to.grad + kGrads), shift);
      if (F::reads_param) ps[i] = load<sizeof(ps[i]) / 4>(to.param);
      if (kMomentum && flags.mode == MomentumMode::next) ms[i] = load<sizeof(ms[i]) / 4>(to.buffer);
      if (kMaster) ks[i] = load<sizeof(ks[i]) / 4>(to.master);
    }
    LRFUSED_UNROLLED
    for (int i = 0; i < n; ++i) {
      auto p = elements<Param, kWidth>(ps[i]);
      auto m = elements<Buffer, kWidth>(ms[i]);
      auto k = elements<Master, kWidth>(ks[i]);
      const auto g = elements<Grad, kWidth>(gs[i]);
      LRFUSED_UNROLLED
      for (int j = 0; j < kWidth; ++j) F::update(p.x[j], g.x[j], m.x[j], k.x[j], hyper, flags);
      Streams to = at;
      move(to, i * kStride);
      store(to.param, words(p));
      if (kMomentum) store(to.buffer, words(m));
      if (kMaster) store(to.master, words(k));
    }
  }

  template <int n, bool Shifted>
  LRFUSED_HD void body(Streams at, int64_t shift, int left) const {
    LRFUSED_ROLLED
    for (; left > (n - 1) * int(kLanes); left -= n * int(kLanes)) {
      vectors<n, Shifted>(at, shift);
      move(at, n * kStride);
    }
    if (n > 1 && left > 0) body<1, Shifted>(at, shift, left);
  }

  LRFUSED_HD void item(Streams at, const Layout& layout, const Item& t, int64_t lane) const {
    singles(at, t.head, lane);
    singles(at, t.tail, lane);
    const int left = int(t.last - t.first - lane);
    const int64_t shift = layout.shift * int64_t(sizeof(Grad));
    move(at, layout.head + (t.first + lane) * kWidth);
    at.grad -= shift;
    if (layout.shift == 0)
      body<Ahead, false>(at, 0, left);
    else
      body<1, true>(at, shift, left);
  }
};

// The values that all items of a step share.
struct Common {
  const double* cells;
  double inv_scale;  // GradScaler's inverse scale
  double clip;       // the clipping coefficient
};

template <class F, int Ahead>
LRFUSED_HD void update(const Table& table, const Common& common, int32_t i, int64_t k,
                       int64_t lane) {
  using M = opmath_t<typename F::Buffer>;
  const Entry& entry = table.entry(i);
  const Row& row = table.row(entry.group);
  const double momentum = row.momentum_cell < 0 ? row.momentum : common.cells[row.momentum_cell];
  const Hyper<M> hyper{M(row.maximize ? -common.inv_scale : common.inv_scale),
                       M(row.weight_decay),
                       M(momentum),
                       M(row.one_minus_dampening),
                       M(-common.cells[2 * int64_t(entry.group)]),
                       M(common.clip)};
  constexpr Sizes sizes{sizeof(typename F::Param), sizeof(typename F::Grad),
                        sizeof(typename F::Buffer), sizeof(typename F::Master), F::width};
  const Streams at{entry.param, entry.grad, entry.buffer,
                   F::master_form == MasterForm::none ? 0 : table.master(i)};
  const Layout layout = layout_of(at, entry.numel, sizes);
  const Item item = item_of(layout, k);
  // A cycle of momentum may pass through 0.
  const MomentumMode mode = momentum == 0 ? MomentumMode::none : MomentumMode(entry.mode);
  const bool decay = row.weight_decay != 0;
  if (mode == MomentumMode::none)
    Lane<F, Ahead, Still>{hyper, {decay}}.item(at, layout, item, lane);
  else
    Lane<F, Ahead, Moving>{hyper, {decay, row.nesterov != 0, mode}}.item(at, layout, item, lane);
}

// Update one lane's part of one item. `Only` is the kind of all tensors in the table, or kMixed.
template <int Only>
LRFUSED_HD void update_item(const Table& table, const Common& common, uint32_t items, uint32_t item,
                            int64_t lane) {
  constexpr int kAhead = Only == kMixed ? 1 : 2;  // all kinds at once take more registers
  const int32_t i = tensor_of(table.first(), table.count, items, item);
  const Entry& entry = table.entry(i);
  const int64_t k = item - table.first()[i];
  switch (Only == kMixed ? kind_of(DType(entry.dtype), MasterForm(entry.master_form)) : Only) {
    case kFloat32:
      return update<Plain<float>, kAhead>(table, common, i, k, lane);
    case kFloat64:
      return update<Plain<double>, kAhead>(table, common, i, k, lane);
    case kBFloat16:
      return update<Plain<bfloat16>, kAhead>(table, common, i, k, lane);
    case kFloat16:
      return update<Plain<float16>, kAhead>(table, common, i, k, lane);
    case kBFloat16Whole:
      return entry.grad_is_wide
                 ? update<Whole<bfloat16, float>, kAhead>(table, common, i, k, lane)
                 : update<Whole<bfloat16, bfloat16>, kAhead>(table, common, i, k, lane);
    case kFloat16Whole:
      return entry.grad_is_wide
                 ? update<Whole<float16, float>, kAhead>(table, common, i, k, lane)
                 : update<Whole<float16, float16>, kAhead>(table, common, i, k, lane);
    default:
      return entry.grad_is_wide ? update<Remainder<float>, kAhead>(table, common, i, k, lane)
                                : update<Remainder<bfloat16>, kAhead>(table, common, i, k, lane);
  }
}

}  // namespace lrfused::cuda
