// Work shared by torch's threads. Of cpu/, only parallel.cpp, step.* and direct.* include torch's
// headers.
#pragma once

#include <chrono>
#include <cstdint>

#include "pace.h"

namespace lrfused {

// Return how many threads torch may use here: 1 inside a parallel region.
int64_t thread_count();

// Call run(context) once on each of torch's threads, and wait for all of them. `run` must not
// throw.
void on_each_thread(void (*run)(void*), void* context);

// Call work() on this thread, or on all of torch's threads at once: OpenMP is slow to change the
// number of its threads. `work` takes the next free piece until none is left. `pace` decides, where
// the work is `divisible`.
template <class Work>
void parallel(bool divisible, int64_t cost, Pace& pace, Work work) {
  const int64_t threads = divisible ? thread_count() : 1;
  if (threads < 2) return work();
  const Pace::Run run = pace.choose(cost, threads);
  const auto began = std::chrono::steady_clock::now();
  if (run.threads)
    on_each_thread([](void* context) { (*static_cast<Work*>(context))(); }, &work);
  else
    work();
  pace.note(cost, run, std::chrono::nanoseconds(std::chrono::steady_clock::now() - began).count());
}

}  // namespace lrfused
