// Work shared by torch's threads. Of cpu/, only parallel.cpp and step.* include torch's headers.
#pragma once

#include <cstdint>

namespace lrfused {

// Return how many threads torch may use here: 1 inside a parallel region.
int64_t thread_count();

// Call run(context) once on each of torch's threads, and wait for all of them. `run` must not
// throw.
void on_each_thread(void (*run)(void*), void* context);

// Call work() on this thread, or, if `worthwhile`, on all of torch's threads at once: OpenMP is
// slow to change the number of its threads. `work` takes the next free piece until none is left.
template <class Work>
void parallel(bool worthwhile, Work work) {
  if (!worthwhile) return work();
  on_each_thread([](void* context) { (*static_cast<Work*>(context))(); }, &work);
}

}  // namespace lrfused
