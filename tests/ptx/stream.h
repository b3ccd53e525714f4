// A tensor's elements in memory, at any alignment, with space around them that is nobody's.
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
  // The first of numel elements of so many bytes lies `phase` elements after a multiple of 16
  // bytes.
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
  bool finite;     // or some are infinities and NaNs
  bool far_apart;  // of two magnitudes; a sum of squares of 16-bit numbers is rounded then
};

void fill(Stream& stream, DType dtype, const Numbers& like, Random& random);

bool same(double a, double b);  // all NaNs are one

// The first element in which two streams differ, or -1. All NaNs are one.
int64_t first_difference(const Stream& a, const Stream& b, DType dtype);

}  // namespace lrfused::ptx
