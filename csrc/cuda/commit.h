// What the last block does: note the rates used, and make the schedule's step for the next.
//
// Each thread takes groups of its own. The history is a ring of rows (epoch, whether a plateau cut,
// rates), of which every group writes its own column, at a counter of its own.
#pragma once

#include "../schedule.h"

namespace lrfused::cuda {

// A device's copy of the program and of what it moves: program.h, with rows in the order of cells.
struct Schedule {
  double* cells;
  int64_t* epochs;
  double* used;
  const int64_t* first_segments;  // of each cell, and where the last cell's end
  const Segment* segments;
  const Constants* constants;
  const double* tables;
  double* history;
  int64_t* recorded;
  int64_t* observed;  // how many metrics there were
  const int64_t* first_plateaus;
  const Plateau* plateaus;
  PlateauState* plateau_states;
  int64_t groups, length;  // length: rows of the history
};

LRFUSED_HD void record(const Schedule& s, int64_t g, bool cut) {
  if (s.length == 0) return;
  const int64_t count = s.recorded[g];
  double* row = s.history + count % s.length * (2 + s.groups);
  if (g == 0) {
    row[0] = double(s.epochs[0]);
    row[1] = cut;
  }
  row[2 + g] = s.cells[2 * g];
  s.recorded[g] = count + 1;
}

LRFUSED_HD void advance(const Schedule& s, int64_t g) {
  const int64_t epoch = s.epochs[g] + 1;
  s.epochs[g] = epoch;
  for (int64_t cell = 2 * g; cell < 2 * g + 2; ++cell) {
    double value = s.cells[cell];
    for (int64_t i = s.first_segments[cell]; i < s.first_segments[cell + 1]; ++i)
      value = apply(s.segments[i], s.constants[i], s.tables, epoch, value);
    s.cells[cell] = value;
  }
  record(s, g, false);
}

LRFUSED_HD void commit(const Schedule& s, bool use, bool advances, int64_t thread,
                       int64_t threads) {
  for (int64_t g = thread; g < s.groups; g += threads) {
    if (use) s.used[g] = s.cells[2 * g];
    if (advances) advance(s, g);
  }
}

// Feed one cell's plateaus a metric; returns whether one cut.
LRFUSED_HD bool feed(const Schedule& s, int64_t cell, double metric) {
  const double before = s.cells[cell];
  double rate = before;
  for (int64_t i = s.first_plateaus[cell]; i < s.first_plateaus[cell + 1]; ++i)
    rate = lrfused::observe(s.plateaus[i], s.plateau_states[i], metric, rate);
  s.cells[cell] = rate;
  return rate != before && before == before;  // a NaN stays one
}

}  // namespace lrfused::cuda
