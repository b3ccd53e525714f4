// Passing a table to a kernel: inside the kernel's argument, which has one of two sizes, or in
// device memory.
#pragma once

#include <cstring>

#include "launch.h"

namespace lrfused::cuda {

constexpr int kThreads = 256;  // in a block
constexpr int kWarps = kThreads / int(kLanes);

// A table in the kernel's argument, with its bytes.
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

// A table whose bytes are in device memory.
template <class T>
struct Resident {
  T table;
  explicit Resident(const T& from) : table(from) {}
  LRFUSED_HD T get() const { return table; }
};

// Call `run` with the table in the form that this launch passes.
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
