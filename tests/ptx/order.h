// Which accesses of a launch come before which, by what PTX guarantees and not by how it went.
//
// A thread's own accesses are in order. A barrier orders what its threads did before it with what
// they do after it. Blocks are ordered only by two fences with atomics between them: what a thread
// did, and what it was ordered after, before a fence and then an atomic, comes before what another
// does after an atomic of the same word that came later, and then a fence. Each thread has a clock
// that counts its own barriers and fences, and what it knows of the other threads' clocks.
#pragma once

#include <algorithm>
#include <cstdint>
#include <unordered_map>
#include <vector>

namespace lrfused::ptx {

// When a thread made an access.
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
  using Clocks = std::vector<uint32_t>;  // of all threads; empty where nothing is known

  static void join(Clocks& to, const Clocks& from) {
    if (to.size() < from.size()) to.resize(from.size());
    for (size_t i = 0; i < from.size(); ++i) to[i] = std::max(to[i], from[i]);
  }

  std::vector<Clocks> known_;
  std::vector<Clocks> released_;                // at each thread's last fence
  std::vector<Clocks> acquired_;                // from atomics, for its next fence
  std::unordered_map<uint64_t, Clocks> words_;  // what the atomics of a word have released
};

}  // namespace lrfused::ptx
