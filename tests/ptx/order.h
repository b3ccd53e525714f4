// The order of a launch's accesses that PTX guarantees, whatever order they were made in.
//
// A thread's own accesses are in order. A barrier orders its threads' accesses before it with those
// after it. Blocks are ordered only by two fences with atomics between them. Accesses of a thread,
// and those ordered before them, that precede a fence and then an atomic come before the accesses
// of another thread that follow a later atomic of the same word and then a fence. Each thread has a
// clock that counts its own barriers and fences, and a copy of the other threads' clocks as far as
// it is ordered after them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <unordered_map>
#include <vector>

namespace lrfused::ptx {

// The time of an access, by its thread's clock.
struct Moment {
  int32_t thread = -1;
  uint32_t clock = 0;
};

class Order {
 public:
  explicit Order(int32_t threads)
      : known_(threads, Clocks(threads)), released_(threads), acquired_(threads) {
    for (int32_t t = 0; t < threads; ++t) known_[t][t] = 1;
  }

  Moment now(int32_t thread) const { return {thread, known_[thread][thread]}; }
  bool is_before(const Moment& m, int32_t thread) const {
    return known_[thread][m.thread] >= m.clock;
  }

  void barrier(int32_t first, int32_t count) {
    Clocks all = known_[first];
    for (int32_t t = first + 1; t < first + count; ++t) join(all, known_[t]);
    for (int32_t t = first; t < first + count; ++t) {
      known_[t] = all;
      ++known_[t][t];
    }
  }

  void fence(int32_t thread) {
    join(known_[thread], acquired_[thread]);
    released_[thread] = known_[thread];
    ++known_[thread][thread];
  }

  void atomic(int32_t thread, uint64_t address) {
    join(acquired_[thread], words_[address]);
    join(words_[address], released_[thread]);
  }

 private:
  using Clocks = std::vector<uint32_t>;  // of all threads; empty if none is known

  static void join(Clocks& to, const Clocks& from) {
    if (to.size() < from.size()) to.resize(from.size());
    for (size_t i = 0; i < from.size(); ++i) to[i] = std::max(to[i], from[i]);
  }

  std::vector<Clocks> known_;
  std::vector<Clocks> released_;                // at each thread's last fence
  std::vector<Clocks> acquired_;                // from atomics, for its next fence
  std::unordered_map<uint64_t, Clocks> words_;  // released by the atomics of each word
};

}  // namespace lrfused::ptx
