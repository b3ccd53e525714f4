#include "stream.h"

#include <cmath>
#include <limits>

namespace lrfused::ptx {
namespace {

constexpr int64_t kSpace = 256;  // bytes before the elements and after them

double any(const Numbers& like, Random& random) {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  const double x = random.between(-1, 1);
  switch (random.below(64)) {
    case 0:
      return std::copysign(0.0, x);
    case 1:
      return std::ldexp(x, -140);  // subnormal in fp32
    case 2:
      return like.finite ? x : std::copysign(infinity, x);
    case 3:
      return like.finite ? x : std::numeric_limits<double>::quiet_NaN();
    default:
      if (like.far_apart && random.one_in(2)) return std::ldexp(x, 8);
      return std::ldexp(x, like.far_apart ? -14 : -int(random.below(random.one_in(4) ? 24 : 3)));
  }
}

}  // namespace

Stream::Stream(int64_t numel, int64_t itemsize, int64_t phase)
    : bytes_(size_t(2 * kSpace + (numel + phase) * itemsize)),
      offset_(kSpace + phase * itemsize),
      numel_(numel),
      itemsize_(itemsize) {
  static_assert(__STDCPP_DEFAULT_NEW_ALIGNMENT__ % 16 == 0, "what phases count from");
}

void Stream::add_region(std::vector<Region>& to, const std::string& name, bool written) const {
  if (bytes_.empty()) return;
  const uint64_t begin = address(), end = begin + uint64_t(numel_ * itemsize_);
  to.push_back({begin, end, Space::global, written ? int32_t(itemsize_) : 0, name});
}

void fill(Stream& stream, DType dtype, const Numbers& like, Random& random) {
  with_type(dtype, [&](auto type) {
    using T = decltype(type);
    for (int64_t i = 0; i < stream.numel(); ++i)
      stream.of<T>()[i] = narrow<T>(opmath_t<T>(any(like, random)));
  });
}

bool same(double a, double b) {
  return bit_cast<uint64_t>(a) == bit_cast<uint64_t>(b) || (a != a && b != b);
}

int64_t first_difference(const Stream& a, const Stream& b, DType dtype) {
  int64_t found = -1;
  with_type(dtype, [&](auto type) {
    using T = decltype(type);
    for (int64_t i = 0; i < a.numel() && found < 0; ++i)  // widening is exact
      if (!same(widen(a.of<T>()[i]), widen(b.of<T>()[i]))) found = i;
  });
  return found;
}

}  // namespace lrfused::ptx
