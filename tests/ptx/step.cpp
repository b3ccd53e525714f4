#include <limits>

#include "cases.h"
#include "csrc/cuda/items.h"
#include "csrc/master.h"
#include "csrc/norm.h"
#include "csrc/pack.h"
#include "csrc/sgd.h"
#include "program.h"
#include "stream.h"

namespace lrfused::ptx {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr Numbers kAny{false, false};
constexpr int64_t kMost = 50;  // tensors

struct Tensor {
  DType dtype, grad_dtype;
  Master kept;
  int32_t group;
  Buffer mode;
  Stream param, grad, buffer, master;

  DType buffer_dtype() const { return kept == Master::none ? dtype : DType::float32; }
};

constexpr int kKinds[] = {cuda::kFloat32,          cuda::kFloat64,       cuda::kBFloat16,
                          cuda::kFloat16,          cuda::kBFloat16Whole, cuda::kFloat16Whole,
                          cuda::kBFloat16Remainder};

// A tensor of one of the kinds, in a group with momentum or without it.
Tensor any_tensor(int kind, int32_t group, bool momentum, Random& random) {
  Tensor t{};
  for (const int32_t master : {0, 1, 2})
    for (const int32_t dtype : {0, 1, 2, 3})
      if (cuda::kind_of(DType(dtype), Master(master)) == kind) {
        t.dtype = t.grad_dtype = DType(dtype);
        t.kept = Master(master);
      }
  if (t.kept != Master::none && random.one_in(2)) t.grad_dtype = DType::float32;
  t.group = group;
  if (momentum) t.mode = random.one_in(4) ? Buffer::first : Buffer::next;

  // Up to three items, and often as few elements as a warp has lanes, or not many more.
  const cuda::Sizes size = cuda::sizes_of(t.dtype, t.grad_dtype, t.kept);
  const int64_t item = cuda::kItemVectors * size.width;
  const int64_t numel = random.below(random.one_in(8) ? 3 * item : random.one_in(2) ? 600 : 80);
  const int64_t phase = random.one_in(2) ? 0 : random.below(8);
  const auto near = [&](int64_t n) { return random.one_in(n) ? random.below(8) : phase; };
  t.param = Stream(numel, size.param, phase);
  t.grad = Stream(numel, size.grad, near(2));
  fill(t.param, t.dtype, kAny, random);
  fill(t.grad, t.grad_dtype, kAny, random);
  if (momentum) {
    t.buffer = Stream(numel, size.buffer, near(8));
    fill(t.buffer, t.buffer_dtype(), kAny, random);
  }
  if (t.kept == Master::none) return t;
  t.master = Stream(numel, size.master, near(8));
  if (t.kept == Master::whole) {
    fill(t.master, DType::float32, kAny, random);
  } else {
    for (int64_t i = 0; i < numel; ++i)
      t.master.of<int16_t>()[i] = int16_t(random.below(1 << 16) - (1 << 15));
  }
  return t;
}

cuda::Row any_row(int32_t group, Random& random) {
  cuda::Row row{};
  row.weight_decay = random.one_in(4) ? 0 : random.between(0, 0.1);
  row.momentum = random.one_in(3) ? 0 : random.between(0.1, 1);
  row.undamped = random.one_in(2) ? 1 : random.between(0, 1);
  row.momentum_cell = row.momentum != 0 && random.one_in(4) ? 2 * group + 1 : -1;
  row.maximize = uint8_t(random.below(2));
  row.nesterov = uint8_t(random.below(2));
  return row;
}

Slot slot_of(Tensor& t, int64_t place) {
  const auto data = [](Stream& s) {
    return s.address() ? static_cast<void*>(s.of<char>()) : nullptr;
  };
  return {data(t.param), data(t.grad), data(t.buffer), data(t.master), t.param.numel(), place,
          t.group,       t.dtype,      t.grad_dtype,   t.mode,         t.kept};
}

struct Parts {
  static constexpr bool scale = true;
  bool decay, nesterov;
  Buffer buffer;
};

// The update of csrc/sgd.h, element by element.
struct Update {
  const cuda::Row& row;
  double momentum, rate, scale, clip;

  template <class M>
  Hyper<M> hyper() const {
    return {M(row.maximize ? -scale : scale),
            M(row.weight_decay),
            M(momentum),
            M(row.undamped),
            M(-rate),
            M(clip)};
  }

  template <class T, class G>
  void run(Tensor& t, T* param, const G* grad, const Parts& parts) const {
    for (int64_t i = 0; i < t.param.numel(); ++i) {
      if (t.kept == Master::none) {
        if constexpr (std::is_same_v<T, G>) {
          T none{};
          sgd<T, true, true>(param[i], grad[i], t.mode == Buffer::none ? none : t.buffer.of<T>()[i],
                             hyper<opmath_t<T>>(), parts);
        }
      } else if constexpr (sizeof(T) == 2) {
        float none{};
        float& buffer = t.mode == Buffer::none ? none : t.buffer.of<float>()[i];
        if (t.kept == Master::whole) {
          float& master = t.master.of<float>()[i];
          sgd<float, true, true>(master, float(widen(grad[i])), buffer, hyper<float>(), parts);
          param[i] = narrow<T>(master);
        } else if constexpr (std::is_same_v<T, bfloat16>) {
          int16_t& remainder = t.master.of<int16_t>()[i];
          float master = join(param[i], remainder);
          sgd<float, true, true>(master, float(widen(grad[i])), buffer, hyper<float>(), parts);
          split(master, param[i], remainder);
        }
      }
    }
  }

  void operator()(Tensor& t) const {
    const Parts parts{row.weight_decay != 0, row.nesterov != 0,
                      momentum == 0 ? Buffer::none : t.mode};
    with_type(t.dtype, [&](auto p) {
      with_type(t.grad_dtype, [&](auto g) {
        run(t, t.param.of<decltype(p)>(), t.grad.of<decltype(g)>(), parts);
      });
    });
  }
};

void check(const Stream& mine, const Stream& expected, DType dtype, const char* name, size_t i) {
  const int64_t element = first_difference(mine, expected, dtype);
  if (element >= 0)
    throw Fault("differs: element " + std::to_string(element) + " of " +
                std::to_string(mine.numel()) + " of " + name + " " + std::to_string(i));
}

void check(const Tensor& mine, const Tensor& expected, size_t i) {
  check(mine.param, expected.param, mine.dtype, "param", i);
  check(mine.buffer, expected.buffer, mine.buffer_dtype(), "buffer", i);
  if (mine.kept == Master::whole) check(mine.master, expected.master, DType::float32, "master", i);
  for (int64_t k = 0; mine.kept == Master::remainder && k < mine.master.numel(); ++k)
    if (mine.master.of<int16_t>()[k] != expected.master.of<int16_t>()[k])
      throw Fault("differs: element " + std::to_string(k) + " of remainder " + std::to_string(i));
}

float any_found(Random& random) {
  constexpr float found[] = {0, 0, 0, 0, 1, 2, std::numeric_limits<float>::quiet_NaN()};
  return found[random.below(std::size(found))];
}

}  // namespace

void step_case(Kernel& kernel, const std::string& where, int only, Random& random) {
  // A thread commits several groups if there are more than threads.
  constexpr int64_t many = cuda::kThreads + 40;
  const bool fits = cuda::Table::size(many, kMost, true) <= capacity_of<cuda::Table>(where);
  const int64_t groups = random.one_in(16) && fits ? many : 1 + random.below(3);
  Program program(groups, random);
  std::vector<cuda::Row> rows;
  for (int32_t g = 0; g < groups; ++g) rows.push_back(any_row(g, random));
  std::vector<Tensor> tensors;
  // Often enough for several blocks: an item is a warp's.
  for (int64_t i = random.below(only == cuda::kMixed ? kMost
                                : random.one_in(2)   ? kMost / 2
                                                     : 7);
       i > 0; --i) {
    const int kind = only == cuda::kMixed ? kKinds[random.below(std::size(kKinds))] : only;
    const int32_t group = int32_t(random.below(groups));
    tensors.push_back(any_tensor(kind, group, rows[group].momentum != 0, random));
  }

  uint32_t ticket = 0;
  for (int launches = 0; launches < 3; ++launches) {
    const float grad_scale = float(random.between(1, 9)), found_inf = any_found(random);
    const double norm = random.one_in(4) ? kNan : random.between(0, 10);
    const cuda::Clip clip{norm, clip_coefficient(norm, 1)};
    cuda::Step step{};
    step.scaler.inv_scale = random.between(0.5, 2);
    if (random.one_in(2)) step.scaler.grad_scale = &grad_scale;
    if (random.one_in(2)) step.scaler.found_inf = &found_inf;
    if (random.one_in(2)) step.clip = &clip;
    step.ticket = &ticket;
    step.use = !random.one_in(4);
    step.advances = step.use && !random.one_in(4);
    step.always = random.one_in(2);
    step.finite = random.one_in(2);

    std::vector<Slot> slots;
    std::vector<const Slot*> pointers;
    for (Tensor& t : tensors) slots.push_back(slot_of(t, int64_t(slots.size())));
    for (const Slot& s : slots) pointers.push_back(&s);
    auto [bytes, table, items, kind] = pack(rows, pointers.data(), pointers.size());
    table.bytes = bytes.data();

    std::vector<Tensor> expected_tensors = tensors;
    Program expected = program;
    const cuda::Schedule moved = expected.schedule();
    for (Tensor& t : expected_tensors) {
      const cuda::Row& row = rows[t.group];
      const double momentum = row.momentum_cell < 0 ? row.momentum : moved.cells[row.momentum_cell];
      if (!step.skipped())
        Update{row, momentum, moved.cells[2 * t.group], step.scaler.scale(), step.coefficient()}(t);
    }
    cuda::commit(moved, step.use, step.moves(step.skipped()), 0, 1);

    std::vector<Region> regions{region_of(&grad_scale, 1, "grad_scale", false),
                                region_of(&found_inf, 1, "found_inf", false),
                                region_of(&clip, 1, "clip", false),
                                region_of(&ticket, 1, "ticket", true),
                                region_of(bytes.data(), bytes.size(), "table", false)};
    program.add_regions(regions);
    step.schedule = program.schedule();
    for (size_t i = 0; i < tensors.size(); ++i) {
      const std::string number = std::to_string(i);
      tensors[i].param.add_region(regions, "param " + number, true);
      tensors[i].grad.add_region(regions, "grad " + number, false);
      tensors[i].buffer.add_region(regions, "buffer " + number, true);
      tensors[i].master.add_region(regions, "master " + number, true);
    }
    with_argument(where, table, [&](const auto& argument) {
      launch(kernel, grid_of(items, random), cuda::kThreads,
             {{&argument, sizeof(argument)}, {&step, sizeof(step)}, {&items, sizeof(items)}},
             regions, random);
    });

    for (size_t i = 0; i < tensors.size(); ++i) check(tensors[i], expected_tensors[i], i);
    program.check_equal(expected);
    if (ticket != 0) throw Fault("differs: the ticket is left at " + std::to_string(ticket));
  }
}

}  // namespace lrfused::ptx
