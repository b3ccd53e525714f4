// Units of work: pieces of large tensors, runs of small ones, of about equal cost. All units of all
// tensors are done in one parallel region.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "../slot.h"
#include "parallel.h"

namespace lrfused {

constexpr int64_t kUnit = 16384;     // elements; three fp32 streams of 64 KiB
constexpr int64_t kTensorCost = 64;  // the cost of finding a tensor, in elements

struct Unit {
  int64_t first, last;  // tensors [first, last), whole ...
  int64_t begin, end;   // ... or, where last == first + 1, elements [begin, end) of one
};

// Cut tensors of numel(i) elements, i in [0, count), into units in order, covering each element
// once. Return what they cost.
template <class Numel>
Cost cut(int64_t count, Numel numel, std::vector<Unit>& units) {
  units.clear();
  int64_t first = 0, cost = 0, all = count * kTensorCost, largest = 0;
  const auto close = [&](int64_t last) {
    if (last > first) units.push_back({first, last, 0, last == first + 1 ? numel(first) : 0});
    first = last;
    cost = 0;
  };
  for (int64_t i = 0; i < count; ++i) {
    const int64_t n = numel(i);
    all += n;
    largest = std::max(largest, n);
    if (n > kUnit) {
      close(i);
      for (int64_t begin = 0; begin < n; begin += kUnit)
        units.push_back({i, i + 1, begin, std::min(begin + kUnit, n)});
      first = i + 1;
    } else {
      cost += n + kTensorCost;
      if (cost >= kUnit) close(i + 1);
    }
  }
  close(count);
  return {all, largest};
}

// Do all units of tensors of numel(i) elements. `largest`: the elements of the largest tensor, if
// numel(i) counts others than torch's.
template <class Numel, class Run>
void for_each_unit(int64_t count, Numel numel, Pace& pace, Run run, int64_t largest = -1) {
  static thread_local std::vector<Unit> units;
  Cost cost = cut(count, numel, units);
  if (largest >= 0) cost.largest = largest;
  const Unit* first = units.data();  // not `units`: each thread would see its own
  parallel(static_cast<int64_t>(units.size()), cost, pace, [=](int64_t i) { run(first[i]); });
}

}  // namespace lrfused
