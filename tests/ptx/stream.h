// A tensor's elements in memory, at any alignment, between bytes that no access may touch.
#pragma once

#include <string>
#include <vector>

#include "csrc/slot.h"
#include "memory.h"
#include "random.h"

namespace lrfused::ptx {

// Call f with a value of the dtype's type.
template <class F>
void with_type(DType dtype, const F& f) {
  switch (dtype) {
    case DType::float32:
      return f(float());
    case DType::float64:
      return f(double());
    case DType::bfloat16:
      return f(bfloat16());
    case DType::float16:
      return f(float16());
  }
}

class Stream {
 public:
  Stream() = default;
  // Make room for numel elements, the first of them `phase` elements after a multiple of 16 bytes.
  Stream(int64_t numel, int64_t itemsize, int64_t phase);

  template <class T>
  T* of() {
    return reinterpret_cast<T*>(bytes_.data() + offset_);
  }
  template <class T>
  const T* of() const {
    return reinterpret_cast<const T*>(bytes_.data() + offset_);
  }
  uint64_t address() const { return bytes_.empty() ? 0 : reinterpret_cast<uint64_t>(of<char>()); }
  int64_t numel() const { return numel_; }
  void add_region(std::vector<Region>& to, const std::string& name, bool written) const;

 private:
  std::vector<char> bytes_;
  int64_t offset_ = 0, numel_ = 0, itemsize_ = 0;
};

struct Numbers {
  bool finite;     // else some are infinities and NaNs
  bool far_apart;  // of two magnitudes, so that a sum of squares of 16-bit numbers is rounded
};

void fill(Stream& stream, DType dtype, const Numbers& like, Random& random);

// Return whether two numbers are equal; all NaNs count as one.
bool same(double a, double b);

// Return the first element in which two streams differ, or -1; all NaNs count as one.
int64_t first_difference(const Stream& a, const Stream& b, DType dtype);

}  // namespace lrfused::ptx
