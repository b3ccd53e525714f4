#include <cmath>
#include <limits>

#include "cases.h"
#include "csrc/cuda/norm.h"
#include "csrc/gpu/pack.h"
#include "stream.h"

namespace lrfused::ptx {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr int64_t kMany = 1100;
constexpr int64_t kRows = 512;  // some loops take as many elements at once

// Return the sum of squares in the order of csrc/norm.h; unscaled gradients are rounded to R.
template <class T, class R>
double square_sum(const T* x, int64_t n, double scale) {
  std::vector<double> pieces;
  for (int64_t begin = 0; begin < std::max<int64_t>(n, 1); begin += kPiece) {
    double sums[kPartialSums] = {};
    for (int64_t i = begin; i < std::min(n, begin + kPiece); ++i) {
      const double d = rn<R>(opmath_t<R>(scale) * opmath_t<R>(widen(x[i])));
      sums[i % kPartialSums] += d * d;
    }
    pieces.push_back(fold(sums));
  }
  return ordered_sum(pieces.data(), int64_t(pieces.size()));
}

struct Tensor {
  Stream grad;
  DType dtype;
  bool single;  // unscaled in fp32
};

Tensor any_tensor(int64_t numel, DType dtype, bool finite, Random& random) {
  const int64_t size = itemsize(dtype), phase = random.one_in(2) ? 0 : random.below(8);
  Tensor t{Stream(numel, size, phase), dtype, size == 2 && random.one_in(2)};
  fill(t.grad, dtype, {finite, true}, random);
  return t;
}

// Make tensors of several pieces; or more tensors, or more pieces, than a warp adds up at once.
std::vector<Tensor> any_tensors(Random& random) {
  const bool finite = !random.one_in(4);
  std::vector<Tensor> tensors;
  if (random.one_in(32))
    tensors.push_back(any_tensor(kMany * kPiece, DType::bfloat16, finite, random));
  const bool many = random.one_in(16);
  for (int64_t i = many ? kMany : 1 + random.below(8); i > 0; --i) {
    const int64_t most = many ? 80 : random.one_in(4) ? 5 * kPiece : kPiece + 200;
    const int64_t numel = random.below(most);
    const int64_t near = many ? numel : (numel / kRows + 1) * kRows - random.below(40);
    tensors.push_back(
        any_tensor(random.one_in(2) ? near : numel, DType(random.below(4)), finite, random));
  }
  return tensors;
}

double sum_of(const Tensor& t, double scale) {
  double sum = 0;
  with_type(t.dtype, [&](auto type) {
    using T = decltype(type);
    const T* x = t.grad.of<T>();
    if constexpr (sizeof(T) == 2)
      sum = t.single ? square_sum<T, float>(x, t.grad.numel(), scale)
                     : square_sum<T, T>(x, t.grad.numel(), scale);
    else
      sum = square_sum<T, T>(x, t.grad.numel(), scale);
  });
  return sum;
}

cuda::Gradient gradient_of(const Tensor& t) {
  return {t.grad.address(), uint64_t(t.grad.numel()), uint64_t(t.dtype), t.single};
}

void check(double mine, double expected, const std::string& what) {
  if (!same(mine, expected))
    throw Fault("differs: " + what + " is " + std::to_string(mine) + ", not " +
                std::to_string(expected));
}

}  // namespace

void norm_case(Kernel& kernel, const std::string& where, Random& random) {
  const cuda::Place place = place_of(where);
  const std::vector<Tensor> tensors = any_tensors(random);
  std::vector<cuda::Gradient> gradients;
  for (const Tensor& t : tensors) gradients.push_back(gradient_of(t));

  const size_t count = tensors.size();
  std::vector<double> sums(count), pieces;
  std::vector<uint32_t> counts(count);
  uint32_t ticket = 0;
  cuda::Clip clip{};
  const float grad_scale = float(random.between(1, 9));
  float found_inf = 0;
  for (int launches = 0; launches < 2; ++launches) {
    cuda::Norm norm{};
    norm.scaler = {random.between(0.5, 2), random.one_in(2) ? &grad_scale : nullptr,
                   random.one_in(2) ? &found_inf : nullptr};
    found_inf = random.one_in(4) ? 1 : 0;
    norm.max_norm = random.between(0.1, 10);
    norm.total = int64_t(count);
    norm.sums = sums.data();
    norm.counts = counts.data();
    norm.clip = &clip;
    norm.ticket = &ticket;
    std::fill(sums.begin(), sums.end(), kNan);
    clip = {-1, -1};

    // In one launch, or in several, as if the table did not fit into an argument.
    const size_t most = fit(room_of(place), cuda::Gradients::size(0), cuda::Gradients::size(1));
    const size_t each = std::min(most, count / size_t(1 + random.below(3)) + 1);
    for (size_t begin = 0, end; begin < count; begin = end) {
      end = std::min(begin + each, count);
      auto [bytes, table, items, only] = pack(gradients.data() + begin, end - begin);
      table.bytes = bytes.data();
      pieces.assign(items, kNan);
      norm.pieces = pieces.data();
      norm.begin = int64_t(begin);
      std::vector<Region> regions{region_of(&grad_scale, 1, "grad_scale", false),
                                  region_of(&found_inf, 1, "found_inf", false),
                                  region_of(bytes.data(), bytes.size(), "table", false),
                                  region_of(&ticket, 1, "ticket", true),
                                  region_of(&clip, 1, "clip", true),
                                  region_of(sums.data(), count, "sums", true),
                                  region_of(pieces.data(), items, "pieces", true),
                                  region_of(counts.data(), count, "counts", true)};
      for (size_t i = begin; i < end; ++i)
        tensors[i].grad.add_region(regions, "gradient " + std::to_string(i), false);
      with_argument(place, table, [&](const auto& argument) {
        launch(kernel, grid_of(items, random), cuda::kThreads,
               {{&argument, sizeof(argument)}, {&norm, sizeof(norm)}, {&items, sizeof(items)}},
               regions, random);
      });
    }

    std::vector<double> expected;
    for (const Tensor& t : tensors) expected.push_back(sum_of(t, norm.scaler.scale()));
    for (size_t i = 0; i < count && !norm.scaler.found(); ++i)
      check(sums[i], expected[i], "the sum of tensor " + std::to_string(i));
    const double taken = std::sqrt(ordered_sum(expected.data(), int64_t(count)));
    const double total = norm.scaler.found() ? kNan : taken;
    check(clip.norm, total, "the norm");
    check(clip.coefficient, clip_coefficient(total, norm.max_norm), "the coefficient");
    if (ticket != 0) throw Fault("differs: the ticket is left at " + std::to_string(ticket));
    for (const uint32_t left : counts)
      if (left != 0) throw Fault("differs: a count is left at " + std::to_string(left));
  }
}

}  // namespace lrfused::ptx
