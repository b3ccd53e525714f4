// How a kernel comes by its table, and how many threads take its items.
#pragma once

#include <cstring>

#include "launch.h"

namespace lrfused::cuda {

constexpr int kThreads = 256;  // of a block
constexpr int kWarps = kThreads / int(kLanes);

// A table in the kernel's argument: its numbers, and its bytes.
template <class T>
struct Inline {
  alignas(16) char bytes[kInline];
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

}  // namespace lrfused::cuda
