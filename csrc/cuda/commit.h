// The last block's work: note the rates used, and advance the schedule.
//
// Each thread takes groups of its own. The history is a ring of rows (epoch, whether a plateau cut,
// rates); every group writes its own column, at a counter of its own.
#pragma once

#include "../plateau.h"
#include "../schedule.h"
#include "vector.h"

namespace lrfused::cuda {

// A device's copy of program.h's tensors, with rows in the order of cells.
struct Schedule {
  double* cells;
  int64_t* epochs;
  double* used;
  const int64_t* first_segments;  // of each cell; then the number of segments
  const Segment* segments;
  const Constants* constants;
  const double* tables;
  double* history;
  int64_t* recorded;
  int64_t* observed;  // metrics ever fed
  const int64_t* first_plateaus;
  const Plateau* plateaus;
  PlateauState* plateau_states;
  int64_t groups, length;  // length: rows of the history
};

// Load a row of a table as a whole, in wide accesses on a GPU.
template <class Row>
LRFUSED_HD Row row_at(const Row* table, int64_t i) {
  return bit_cast<Row>(load<sizeof(Row) / 4>(reinterpret_cast<uint64_t>(table + i)));
}

// Write group g's column of row `count` of the history.
LRFUSED_HD void record(const Schedule& s, int64_t g, int64_t count, int64_t epoch, double rate,
                       bool cut) {
  if (s.length == 0) return;
  double* row = s.history + count % s.length * (2 + s.groups);
  if (g == 0) {
    row[0] = double(epoch);
    row[1] = cut;
  }
  row[2 + g] = rate;
  s.recorded[g] = count + 1;
}

// Return the value of a cell after segments [first, last).
LRFUSED_HD double moved(const Schedule& s, int64_t first, int64_t last, int64_t epoch,
                        double value) {
  LRFUSED_ROLLED
  for (int64_t i = first; i < last; ++i)
    value = apply(row_at(s.segments, i), row_at(s.constants, i), s.tables, epoch, value);
  return value;
}

// Note the rate that group g's step used, and advance the group. The last block waits only for
// memory here, so everything is read at once, before anything is written.
LRFUSED_HD void commit_group(const Schedule& s, int64_t g, bool use, bool advances) {
  const int64_t cell = 2 * g, epoch = s.epochs[g] + 1, count = s.recorded[g];
  const int64_t first = s.first_segments[cell], middle = s.first_segments[cell + 1],
                last = s.first_segments[cell + 2];
  const double rate = s.cells[cell], momentum = s.cells[cell + 1];
  if (advances) {
    const double next = moved(s, first, middle, epoch, rate);
    s.cells[cell + 1] = moved(s, middle, last, epoch, momentum);
    s.cells[cell] = next;
    s.epochs[g] = epoch;
    record(s, g, count, epoch, next, false);
  }
  if (use) s.used[g] = rate;
}

LRFUSED_HD void commit(const Schedule& s, bool use, bool advances, int64_t thread,
                       int64_t threads) {
  for (int64_t g = thread; g < s.groups; g += threads) commit_group(s, g, use, advances);
}

// Feed one cell's plateaus a metric; return whether one cut the rate.
LRFUSED_HD bool feed(const Schedule& s, int64_t cell, double metric) {
  const double before = s.cells[cell];
  double rate = before;
  for (int64_t i = s.first_plateaus[cell]; i < s.first_plateaus[cell + 1]; ++i)
    rate = lrfused::observe(row_at(s.plateaus, i), s.plateau_states[i], metric, rate);
  s.cells[cell] = rate;
  return rate != before && before == before;  // a NaN stays one
}

}  // namespace lrfused::cuda
