// The kernels run on the CPU, item by item and lane by lane: the same headers and the same bytes,
// for tests without a GPU. This is slow.
#include "emulated.h"

#include "argument.h"
#include "norm.h"
#include "update.h"

namespace lrfused::cuda {
namespace {

Tape* recorder = nullptr;

// Run a kernel on its table, passed as a launch on a GPU passes it, or record that. An argument's
// bytes are copied.
template <class T, class Kernel>
const char* run(const Launch& launch, const T& table, const Kernel& kernel) {
  pass(launch, table, [&](const auto& where) {
    if (recorder)
      recorder->kernels.push_back([=] { kernel(where.get()); });
    else
      kernel(where.get());
  });
  return nullptr;
}

// One number for each lane of a warp.
struct Warp {
  double x[kLanes];
};
Warp operator+(const Warp& a, const Warp& b) {
  Warp c;
  for (int64_t lane = 0; lane < kLanes; ++lane) c.x[lane] = a.x[lane] + b.x[lane];
  return c;
}
Warp down(const Warp& a, int by) {
  Warp c;
  for (int64_t lane = 0; lane < kLanes; ++lane)
    c.x[lane] = a.x[lane + by < kLanes ? lane + by : lane];
  return c;
}

// Return the folded sum of a warp, in which add(lane, sums) makes each lane's partial sums.
template <class Add>
double fold_lanes(Add add) {
  Warp sums[kSumsPerLane];
  bool wide = false;
  for (int64_t lane = 0; lane < kLanes; ++lane) {
    double own[kSumsPerLane] = {};
    wide = add(lane, own);
    for (int k = 0; k < kSumsPerLane; ++k) sums[k].x[lane] = own[k];
  }
  return fold(sums, wide, down).x[0];
}

double sum_of(const double* x, int64_t n) {
  return fold_lanes([&](int64_t lane, double (&own)[kSumsPerLane]) {
    add_numbers(x, n, lane, own);
    return false;
  });
}

}  // namespace

Tape* record_to(Tape* tape) {
  std::swap(recorder, tape);
  return tape;
}

bool on_gpu() { return false; }
int driver_version() { return kLongArguments; }
const char* load_step(int, size_t) { return nullptr; }
const char* load_norm(int, size_t) { return nullptr; }

const char* launch_step(const Launch& l, const Table& from, int, const Step& s) {
  return run(l, from, [l, s](const Table& table) {
    const bool skipped = s.skipped();
    const Common common{s.schedule.cells, s.scaler.scale(), s.coefficient()};
    for (uint32_t item = 0; item < l.items && !skipped; ++item)
      for (int64_t lane = 0; lane < kLanes; ++lane)
        update_item<kMixed>(table, common, l.items, item, lane);
    commit(s.schedule, s.use, s.moves(skipped), 0, 1);
  });
}

const char* launch_norm(const Launch& l, const Gradients& from, const Norm& n) {
  return run(l, from, [n](const Gradients& table) {
    const bool ends = n.begin + table.count == n.total;
    if (n.scaler.found()) {
      if (ends) *n.clip = not_taken();
      return;
    }
    const double scale = n.scaler.scale();
    for (int32_t i = 0; i < table.count; ++i) {
      const uint32_t first = table.first()[i], last = table.first()[i + 1];
      for (uint32_t item = first; item < last; ++item)
        n.pieces[item] = fold_lanes([&](int64_t lane, double (&own)[kSumsPerLane]) {
          return add_piece(table.entry(i), item - first, scale, lane, own);
        });
      n.sums[n.begin + i] =
          last - first == 1 ? n.pieces[first] : sum_of(n.pieces + first, last - first);
    }
    if (ends) *n.clip = clip_of(sum_of(n.sums, n.total), n.max_norm);
  });
}

const char* launch_observe(int, void*, const Schedule& s, const double* metric) {
  const auto kernel = [s, metric] {
    bool cut = false;
    for (int64_t cell = 0; cell < 2 * s.groups; ++cell) cut |= feed(s, cell, *metric);
    ++*s.observed;
    for (int64_t g = 0; g < s.groups && cut; ++g)
      record(s, g, s.recorded[g], s.epochs[g], s.cells[2 * g], true);
  };
  if (recorder)
    recorder->kernels.push_back(kernel);
  else
    kernel();
  return nullptr;
}

}  // namespace lrfused::cuda
