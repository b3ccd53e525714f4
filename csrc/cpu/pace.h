// Whether waking threads pays, by the time that the same work took before, with and without them.
//
// Waking a thread costs from 2 microseconds, while it still spins after its last work, to 100 and
// more, when it sleeps and the machine is a virtual one. So no constant can decide. A pace keeps,
// for each power of two of the work's cost, the time per cost on one thread and on all of torch's,
// and chooses the better one. The other one is tried again after 8 runs, 16, 32, ... up to 1,024;
// after 8 where it was better, and much later where it was many times worse.
#pragma once

#include <cstdint>

namespace lrfused {

class Pace {
 public:
  explicit Pace(int64_t threads = 0) : threads_(threads) {}

  struct Run {
    bool threads;  // whether to wake threads
    bool retry;    // whether this was the worse choice
  };

  // Choose for work of this cost, in elements, where torch has so many threads.
  Run choose(int64_t cost, int64_t threads) {
    if (threads != threads_) *this = Pace(threads);
    Known& k = known_[bucket(cost)];
    const bool retry = --k.left <= 0 && cost < kHuge;
    return {k.prefers_threads(cost) != retry, retry};
  }

  // Note that a run took so many nanoseconds.
  void note(int64_t cost, Run run, int64_t nanoseconds) {
    Known& k = known_[bucket(cost)];
    float& known = k.time[run.threads];
    const float now = static_cast<float>(nanoseconds) / static_cast<float>(cost + 1);
    int& count = k.count[run.threads];
    if (count < 2)  // the first run may have been interrupted, or have made the threads
      known = count == 0 || now < known ? now : known, ++count;
    else if (now < known)
      known = (known + now) / 2;
    else  // slowly: one interrupted run is no measure
      known += ((now < 1.25f * known ? now : 1.25f * known) - known) / 4;
    if (run.retry) k.retry_after(count < 2 ? 0 : known / k.time[!run.threads]);
  }

 private:
  static constexpr int kBuckets = 48, kFirst = 8, kLongest = 1024, kMost = 1 << 16;
  static constexpr int64_t kLarge = 1 << 18;  // elements: threads are tried first
  static constexpr int64_t kHuge = 1 << 24;   // elements: nothing else is tried

  struct Known {
    float time[2] = {0, 0};            // nanoseconds per cost, on one thread and on all
    int count[2] = {0, 0};             // runs that were measured, up to 2
    int wait = kFirst, left = kFirst;  // runs between two retries, and until the next one

    bool prefers_threads(int64_t cost) const {
      if (cost >= kHuge || count[0] == 0 || count[1] == 0) return cost >= kLarge;
      return time[1] < time[0];
    }
    // `ratio`: how many times as long the retry took.
    void retry_after(float ratio) {
      if (ratio < 1)
        wait = kFirst;
      else if (ratio < 2)
        wait = 2 * wait < kLongest ? 2 * wait : kLongest;
      else
        wait = ratio * float(wait) < kMost ? int(ratio * float(wait)) : kMost;
      left = wait;
    }
  };
  static int bucket(int64_t cost) {
    const int b = 63 - __builtin_clzll(static_cast<uint64_t>(cost) | 1);
    return b < kBuckets ? b : kBuckets - 1;
  }

  int64_t threads_;
  Known known_[kBuckets];
};

}  // namespace lrfused
