// A kernel launched some times on random data, each time compared with the host's own headers.
#pragma once

#include <algorithm>
#include <string>

#include "csrc/cuda/argument.h"
#include "fault.h"
#include "machine.h"
#include "random.h"

namespace lrfused::ptx {

// `where` and `only` are the kernel's template arguments, as text. Each throws a Fault where a
// launch makes one, and where a bit differs.
void step_case(Kernel& kernel, const std::string& where, int only, Random& random);
void norm_case(Kernel& kernel, const std::string& where, Random& random);
void observe_case(Kernel& kernel, Random& random);

// Some blocks, each with a warp for an item if there are as many.
inline int32_t grid_of(uint32_t items, Random& random) {
  const int64_t wanted = (int64_t(items) + cuda::kWarps - 1) / cuda::kWarps;
  return int32_t(std::clamp<int64_t>(wanted, 1, 1 + random.below(3)));
}

// How many bytes of a table a kernel takes that has it in such a place.
template <class T>
size_t capacity_of(const std::string& where) {
  if (where.rfind("Inline<", 0) == 0) return sizeof(cuda::Inline<T>::bytes);
  if (where.rfind("Resident<", 0) == 0) return SIZE_MAX;
  throw Fault("no argument for a table's place: " + where);
}

// Call f with the argument that a kernel takes its table as.
template <class T, class F>
void with_argument(const std::string& where, const T& table, const F& f) {
  const size_t capacity = capacity_of<T>(where);
  if (table.size() > capacity) throw Fault("a table that does not fit");
  capacity == SIZE_MAX ? f(cuda::Resident<T>(table)) : f(cuda::Inline<T>(table));
}

}  // namespace lrfused::ptx
