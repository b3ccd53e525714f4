// Units of work: pieces of large tensors, runs of small ones, of about equal cost. All units of all
// tensors are done in one parallel region.
#pragma once

#include <algorithm>
#include <atomic>
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
// once.
template <class Numel>
void cut(int64_t count, Numel numel, std::vector<Unit>& units) {
  units.clear();
  int64_t first = 0, cost = 0;
  const auto close = [&](int64_t last) {
    if (last > first) units.push_back({first, last, 0, last == first + 1 ? numel(first) : 0});
    first = last;
    cost = 0;
  };
  for (int64_t i = 0; i < count; ++i) {
    const int64_t n = numel(i);
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
}

constexpr int64_t kSerial = 32768;  // elements below which waking threads costs more than it saves

// Each thread takes the next free unit, so that a slow core takes fewer.
template <class Run>
void for_each_unit(const Slot* slots, int64_t count, Run run) {
  static thread_local std::vector<Unit> units;
  cut(count, [&](int64_t i) { return slots[i].numel; }, units);
  const int64_t total = static_cast<int64_t>(units.size());
  const Unit* first = units.data();  // not `units`: each thread would see its own
  std::atomic<int64_t> next{0};
  const auto work = [&] {
    for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < total;) run(first[i]);
  };
  parallel(total > 1 && total * kUnit > kSerial && thread_count() > 1, work);
}

}  // namespace lrfused
