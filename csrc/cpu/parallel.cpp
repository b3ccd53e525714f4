// A parallel region in torch's own OpenMP runtime, whichever compiler this is.
//
// -fopenmp would link the compiler's own runtime, and clang's is another library than torch's. So
// the region is entered by the function that gcc's code calls. libgomp, libomp and libiomp5 all
// have it, and it is resolved to the library that torch has loaded.
#include "parallel.h"

#include <ATen/Config.h>
#include <ATen/Parallel.h>
#include <pthread.h>

#if AT_PARALLEL_OPENMP
extern "C" {
void GOMP_parallel(void (*run)(void*), void* context, unsigned threads, unsigned flags);
int omp_get_thread_num();
}
#endif

namespace lrfused {
namespace {

constexpr int64_t kTorchsGrain = 32768;  // at::internal::GRAIN_SIZE: torch uses threads for more

bool forked = false;
[[maybe_unused]] const int watches_forks = pthread_atfork(nullptr, nullptr, [] { forked = true; });

}  // namespace

void note_fork() { forked = true; }

int64_t thread_count(int64_t largest) {
  if (at::in_parallel_region() || (forked && largest <= kTorchsGrain)) return 1;
  return at::get_num_threads();
}

void on_each_thread(void (*run)(void*, int64_t), void* context) {
#if AT_PARALLEL_OPENMP
  struct Call {
    void (*run)(void*, int64_t);
    void* context;
  } call{run, context};
  const auto on_thread = [](void* call) {
    const Call& c = *static_cast<Call*>(call);
    c.run(c.context, omp_get_thread_num());
  };
  GOMP_parallel(on_thread, &call, 0, 0);  // 0: as many as torch set
#else
  at::parallel_for(0, at::get_num_threads(), 1,
                   [&](int64_t thread, int64_t) { run(context, thread); });
#endif
}

}  // namespace lrfused
