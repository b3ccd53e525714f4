// Random numbers that are the same everywhere for the same seed.
#pragma once

#include <cstdint>
#include <random>

namespace lrfused::ptx {

class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}
  int64_t below(int64_t n) { return int64_t(engine_() % uint64_t(n)); }
  bool one_in(int64_t n) { return below(n) == 0; }
  double between(double low, double high) {
    return low + (high - low) * (double(engine_() >> 11) * 0x1p-53);
  }

 private:
  std::mt19937_64 engine_;
};

}  // namespace lrfused::ptx
