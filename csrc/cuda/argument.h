// How a kernel comes by its table: inside its argument, which has one of two sizes, or in device
// memory; and how many threads take its items.
#pragma once

#include <cstring>

#include "launch.h"

namespace lrfused::cuda {

constexpr int kThreads = 256;  // of a block
constexpr int kWarps = kThreads / int(kLanes);

// A table in the kernel's argument: its numbers, and its bytes.
template <class T, size_t room>
struct Inline {
  alignas(16) char bytes[room];
  T table;
  explicit Inline(const T& from) : table(from) { memcpy(bytes, from.bytes, from.size()); }
  LRFUSED_HD T get() const {
    T t = table;
    t.bytes = bytes;
    return t;
  }
};

template <class T>
struct Resident {
  T table;
  explicit Resident(const T& from) : table(from) {}
  LRFUSED_HD T get() const { return table; }
};

// Call `run` with the table as this launch passes it.
template <class T, class Run>
auto pass(const Launch& launch, const T& table, const Run& run) {
  switch (launch.place) {
    case Place::small:
      return run(Inline<T, kSmall>(table));
    case Place::large:
      return run(Inline<T, kInline>(table));
    default:
      return run(Resident<T>(table));
  }
}

}  // namespace lrfused::cuda
