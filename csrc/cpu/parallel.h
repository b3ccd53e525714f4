// Work shared by torch's threads. This header and its users in cpu/ include nothing of torch.
#pragma once

#include <cstdint>

namespace lrfused {

// How many threads torch may use here: 1 inside of a parallel region.
int64_t thread_count();

// Call run(context) once on each of torch's threads, and wait for all of them. `run` must not
// throw.
void on_each_thread(void (*run)(void*), void* context);

// Call work() at the same time on up to `threads` threads, at least once; work takes pieces as they
// come free, and may find none left.
template <class Work>
void parallel(int64_t threads, Work work) {
  if (threads <= 1) return work();
  on_each_thread([](void* context) { (*static_cast<Work*>(context))(); }, &work);
}

}  // namespace lrfused
