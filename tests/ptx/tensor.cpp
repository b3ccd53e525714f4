#include "tensor.h"

#include "csrc/master.h"
#include "csrc/sgd.h"
#include "fault.h"

namespace lrfused::ptx {
namespace {

constexpr Numbers kAny{false, false};

struct Flags {
  static constexpr bool scale = true;
  bool decay, nesterov;
  MomentumMode mode;
};

template <class M>
Hyper<M> hyper_of(const Update& u) {
  return {M(u.row.maximize ? -u.scale : u.scale),
          M(u.row.weight_decay),
          M(u.momentum),
          M(u.row.one_minus_dampening),
          M(-u.rate),
          M(u.clip)};
}

template <class T, class G>
void run(Tensor& t, const Update& update, const Flags& flags) {
  T* param = t.param.of<T>();
  const G* grad = t.grad.of<G>();
  for (int64_t i = 0; i < t.param.numel(); ++i) {
    if (t.master_form == MasterForm::none) {
      if constexpr (std::is_same_v<T, G>) {
        T none{};
        sgd<T, true, true>(param[i], grad[i],
                           t.mode == MomentumMode::none ? none : t.buffer.of<T>()[i],
                           hyper_of<opmath_t<T>>(update), flags);
      }
    } else if constexpr (sizeof(T) == 2) {
      float none{};
      float& buffer = t.mode == MomentumMode::none ? none : t.buffer.of<float>()[i];
      if (t.master_form == MasterForm::whole) {
        float& master = t.master.of<float>()[i];
        sgd<float, true, true>(master, float(widen(grad[i])), buffer, hyper_of<float>(update),
                               flags);
        param[i] = narrow<T>(master);
      } else if constexpr (std::is_same_v<T, bfloat16>) {
        int16_t& remainder = t.master.of<int16_t>()[i];
        float master = join(param[i], remainder);
        sgd<float, true, true>(master, float(widen(grad[i])), buffer, hyper_of<float>(update),
                               flags);
        split(master, param[i], remainder);
      }
    }
  }
}

void check(const Stream& mine, const Stream& expected, DType dtype, const char* name, size_t i) {
  const int64_t element = first_difference(mine, expected, dtype);
  if (element >= 0)
    throw Fault("differs: element " + std::to_string(element) + " of " +
                std::to_string(mine.numel()) + " of " + name + " " + std::to_string(i));
}

}  // namespace

Tensor any_tensor(int kind, int32_t group, bool momentum, Random& random) {
  Tensor t{};
  for (const int32_t master : {0, 1, 2})
    for (const int32_t dtype : {0, 1, 2, 3})
      if (cuda::kind_of(DType(dtype), MasterForm(master)) == kind) {
        t.dtype = t.grad_dtype = DType(dtype);
        t.master_form = MasterForm(master);
      }
  if (t.master_form != MasterForm::none && random.one_in(2)) t.grad_dtype = DType::float32;
  t.group = group;
  if (momentum) t.mode = random.one_in(4) ? MomentumMode::first : MomentumMode::next;

  // Up to three items, and often as few elements as a warp has lanes, or not many more.
  const cuda::Sizes size = cuda::sizes_of(t.dtype, t.grad_dtype, t.master_form);
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
  if (t.master_form == MasterForm::none) return t;
  t.master = Stream(numel, size.master, near(8));
  if (t.master_form == MasterForm::whole) {
    fill(t.master, DType::float32, kAny, random);
  } else {
    for (int64_t i = 0; i < numel; ++i)
      t.master.of<int16_t>()[i] = int16_t(random.below(1 << 16) - (1 << 15));
  }
  return t;
}

Slot slot_of(Tensor& t, int64_t place) {
  const auto data = [](Stream& s) {
    return s.address() ? static_cast<void*>(s.of<char>()) : nullptr;
  };
  return {data(t.param), data(t.grad), data(t.buffer), data(t.master), t.param.numel(), place,
          t.group,       t.dtype,      t.grad_dtype,   t.mode,         t.master_form};
}

void add_regions(const Tensor& t, size_t i, std::vector<Region>& to) {
  const std::string number = std::to_string(i);
  t.param.add_region(to, "param " + number, true);
  t.grad.add_region(to, "grad " + number, false);
  t.buffer.add_region(to, "buffer " + number, true);
  t.master.add_region(to, "master " + number, true);
}

void Update::operator()(Tensor& t) const {
  const Flags flags{row.weight_decay != 0, row.nesterov != 0,
                    momentum == 0 ? MomentumMode::none : t.mode};
  with_type(t.dtype, [&](auto param) {
    with_type(t.grad_dtype,
              [&](auto grad) { run<decltype(param), decltype(grad)>(t, *this, flags); });
  });
}

void check_equal(const Tensor& mine, const Tensor& expected, size_t i) {
  check(mine.param, expected.param, mine.dtype, "param", i);
  check(mine.buffer, expected.buffer, mine.buffer_dtype(), "buffer", i);
  if (mine.master_form == MasterForm::whole)
    check(mine.master, expected.master, DType::float32, "master", i);
  for (int64_t k = 0; mine.master_form == MasterForm::remainder && k < mine.master.numel(); ++k)
    if (mine.master.of<int16_t>()[k] != expected.master.of<int16_t>()[k])
      throw Fault("differs: element " + std::to_string(k) + " of remainder " + std::to_string(i));
}

}  // namespace lrfused::ptx
