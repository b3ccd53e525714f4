// The kernels of step.cu run on the CPU, block by block and lane by lane: the same code around the
// same bytes, for tests where there is no GPU. Nothing of it is fast.
#include "launch.h"
#include "update.h"

namespace lrfused::cuda {

const char* launch_step(const Launch& l, const Step& s) {
  const bool skipped = s.skipped();
  const Common common{s.schedule.cells, s.scale()};
  for (uint32_t item = 0; item < l.items && !skipped; ++item)
    for (int64_t lane = 0; lane < kLanes; ++lane) update_item<kMixed>(l.table, common, item, lane);
  if (s.use || s.advances) commit(s.schedule, s.uses(skipped), s.moves(skipped), 0, 1);
  return nullptr;
}

const char* launch_observe(int, void*, const Schedule& s, const double* metric) {
  bool cut = false;
  for (int64_t cell = 0; cell < 2 * s.groups; ++cell) cut |= observe(s, cell, *metric);
  for (int64_t g = 0; g < s.groups && cut; ++g) record(s, g, true);
  return nullptr;
}

bool on_gpu() { return false; }

}  // namespace lrfused::cuda
