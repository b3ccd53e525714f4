// Work shared by torch's threads. Of cpu/, only parallel.cpp, step.* and direct.* include torch's
// headers.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <vector>

#include "pace.h"

namespace lrfused {

// Return how many threads torch may use here: 1 inside a parallel region, and in a forked process
// unless torch would use threads for a tensor of `largest` elements too. OpenMP's threads are not
// forked: if there were any, whoever wakes them waits for ever. A process is known for a fork if
// lrfused was imported before it was forked.
int64_t thread_count(int64_t largest);

// Note that this process is a fork. Those of a process that has loaded the extension are noted.
void note_fork();

// Call run(context, thread) once on each of torch's threads, counted from 0, and wait for all of
// them. `run` must not throw.
void on_each_thread(void (*run)(void*, int64_t), void* context);

// The numbers from 0 to `total`, in as many shares as there are threads. A thread takes its own
// share in order, then helps with the others'. So its reads go on where they were, which is what a
// CPU's prefetcher expects, and it meets the same numbers, and what its caches still have of them,
// in every step and in every pass of a step; and a slow core takes fewer.
class Shares {
 public:
  Shares(int64_t total, int64_t threads) : shares_(threads) {
    for (int64_t t = 0; t < threads; ++t) {
      shares_[t].next = total * t / threads;
      shares_[t].end = total * (t + 1) / threads;
    }
  }

  template <class Piece>
  void take(int64_t thread, const Piece& piece) {
    const int64_t threads = static_cast<int64_t>(shares_.size());
    for (int64_t t = 0; t < threads; ++t) {
      Share& share = shares_[(thread + t) % threads];
      if (share.next.load(std::memory_order_relaxed) >= share.end) continue;  // a shared read
      for (int64_t i; (i = share.next.fetch_add(1, std::memory_order_relaxed)) < share.end;)
        piece(i);
    }
  }

 private:
  struct alignas(64) Share {
    std::atomic<int64_t> next;
    int64_t end;
  };
  std::vector<Share> shares_;
};

// The cost of some work and of its largest tensor, in elements.
struct Cost {
  int64_t all, largest;
};

// Call piece(i) for each i from 0 to `total`, on this thread, or on all of torch's threads at once:
// OpenMP is slow to change the number of its threads. `pace` decides, by what they cost.
template <class Piece>
void parallel(int64_t total, Cost work, Pace& pace, const Piece& piece) {
  const int64_t cost = work.all;
  const auto here = [&] {
    for (int64_t i = 0; i < total; ++i) piece(i);
  };
  const int64_t threads = total > 1 ? thread_count(work.largest) : 1;
  if (threads < 2) return here();
  const Pace::Run run = pace.choose(cost, threads);
  const auto began = std::chrono::steady_clock::now();
  if (run.threads) {
    Shares shares(total, threads);
    auto work = [&](int64_t thread) { shares.take(thread, piece); };
    on_each_thread(
        [](void* context, int64_t thread) { (*static_cast<decltype(work)*>(context))(thread); },
        &work);
  } else {
    here();
  }
  pace.note(cost, run, std::chrono::nanoseconds(std::chrono::steady_clock::now() - began).count());
}

}  // namespace lrfused
