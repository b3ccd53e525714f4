// Launching kernels on random data, and comparing them with csrc's headers compiled for the host.
#pragma once

#include <algorithm>
#include <string>

#include "csrc/cuda/argument.h"
#include "fault.h"
#include "machine.h"
#include "random.h"

namespace lrfused::ptx {

// `where` and `only` are the kernel's template arguments. Each throws the launch's Fault, or a
// Fault if a bit differs.
void step_case(Kernel& kernel, const std::string& where, int only, Random& random);
void norm_case(Kernel& kernel, const std::string& where, Random& random);
void observe_case(Kernel& kernel, Random& random);

// Return a random number of blocks, at most as many as it takes for a warp for each item.
inline int32_t grid_of(uint32_t items, Random& random) {
  const int64_t wanted = (int64_t(items) + cuda::kWarps - 1) / cuda::kWarps;
  return int32_t(std::clamp<int64_t>(wanted, 1, 1 + random.below(3)));
}

// Parse Inline<Table, 3840ul> or Resident<Table>.
inline cuda::Place place_of(const std::string& where) {
  if (where.rfind("Resident<", 0) == 0) return cuda::Place::resident;
  if (where.rfind("Inline<", 0) != 0) throw Fault("no place for a table: " + where);
  const size_t room = std::stoull(where.substr(where.find(',') + 1));
  return cuda::place_of(true, room);
}

inline size_t room_of(cuda::Place place) {
  if (place == cuda::Place::resident) return SIZE_MAX;
  return place == cuda::Place::small ? cuda::kSmall : cuda::kInline;
}

// Call f with the kernel's argument that holds the table.
template <class T, class F>
void with_argument(cuda::Place place, const T& table, const F& f) {
  if (table.size() > room_of(place)) throw Fault("a table that does not fit");
  cuda::pass(cuda::Launch{0, nullptr, place, 0}, table, f);
}

}  // namespace lrfused::ptx
