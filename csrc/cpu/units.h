// All units of all tensors, in one parallel region.
#pragma once

#include <algorithm>
#include <atomic>
#include <vector>

#include "../chunks.h"
#include "../slot.h"
#include "parallel.h"

namespace lrfused {

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
