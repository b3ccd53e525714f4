// The kernels of step.cu run on the CPU, item by item and lane by lane: the same code around the
// same bytes, for tests where there is no GPU. Nothing of it is fast.
#include "emulated.h"

#include <cstring>

#include "launch.h"
#include "update.h"

namespace lrfused::cuda {
namespace {

Tape* recorder = nullptr;

const char* run(const std::function<void()>& kernel) {
  recorder ? recorder->kernels.push_back(kernel) : kernel();
  return nullptr;
}

}  // namespace

Tape* record_to(Tape* tape) {
  std::swap(recorder, tape);
  return tape;
}

bool on_gpu() { return false; }

const char* launch_step(const Launch& launch, const Step& s) {
  Launch l = launch;
  // As a kernel's arguments do, the table's bytes stay with the launch.
  std::vector<char> inlined;
  if (l.inlined)
    inlined.assign(l.table.bytes, l.table.bytes + size_of(l.table.groups, l.table.count));
  return run([l, s, inlined]() mutable {
    if (l.inlined) l.table.bytes = inlined.data();
    const bool skipped = s.skipped();
    const Common common{s.schedule.cells, s.scale()};
    for (uint32_t item = 0; item < l.items && !skipped; ++item)
      for (int64_t lane = 0; lane < kLanes; ++lane)
        update_item<kMixed>(l.table, common, item, lane);
    commit(s.schedule, s.use, s.moves(skipped), 0, 1);
  });
}

const char* launch_observe(int, void*, const Schedule& s, const double* metric) {
  return run([s, metric] {
    bool cut = false;
    for (int64_t cell = 0; cell < 2 * s.groups; ++cell) cut |= observe(s, cell, *metric);
    ++*s.observed;
    for (int64_t g = 0; g < s.groups && cut; ++g) record(s, g, true);
  });
}

}  // namespace lrfused::cuda
