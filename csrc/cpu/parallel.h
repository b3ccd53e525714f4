// Work shared by torch's threads. This header and its users in cpu/ include nothing of torch.
#pragma once

#include <cstdint>

namespace lrfused {

// How many threads torch may use here: 1 inside of a parallel region.
int64_t thread_count();

// Call run(context) once on each of torch's threads, and wait for all of them. `run` must not
// throw.
void on_each_thread(void (*run)(void*), void* context);

// Call work() here, or, where it is worth waking them, on all of torch's threads at once: OpenMP is
// slow to change the number of its threads. `work` takes pieces as they come free, and may find
// none left.
template <class Work>
void parallel(bool worthwhile, Work work) {
  if (!worthwhile) return work();
  on_each_thread([](void* context) { (*static_cast<Work*>(context))(); }, &work);
}

}  // namespace lrfused
