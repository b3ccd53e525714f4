#include <limits>

#include "cases.h"
#include "program.h"

namespace lrfused::ptx {
namespace {

double any_metric(Random& random) {
  if (random.one_in(16)) return std::numeric_limits<double>::quiet_NaN();
  if (random.one_in(16)) return std::numeric_limits<double>::infinity();
  return random.between(-1, 1);
}

void expect(Program& program, double metric) {
  const cuda::Schedule s = program.schedule();
  bool cut = false;
  for (int64_t cell = 0; cell < 2 * s.groups; ++cell) cut |= cuda::feed(s, cell, metric);
  ++*s.observed;
  for (int64_t g = 0; g < s.groups && cut; ++g)
    cuda::record(s, g, s.recorded[g], s.epochs[g], s.cells[2 * g], true);
}

}  // namespace

void observe_case(Kernel& kernel, Random& random) {
  constexpr int32_t threads = cuda::kThreads;
  Program program(1 + random.below(random.one_in(8) ? 8 * threads : 8), random);
  for (int launches = 0; launches < 8; ++launches) {
    const double metric = any_metric(random);
    std::vector<Region> regions{region_of(&metric, 1, "metric", false)};
    program.add_regions(regions);
    Program expected = program;
    expect(expected, metric);
    const cuda::Schedule schedule = program.schedule();
    const double* at = &metric;
    launch(kernel, 1, threads, {{&schedule, sizeof(schedule)}, {&at, sizeof(at)}}, regions, random);
    program.check_equal(expected);
  }
}

}  // namespace lrfused::ptx
