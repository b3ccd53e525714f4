// A schedule as data: each segment has an affine map and the epochs at which it changes a cell.
//
// A group has two cells, its rate and its momentum: cells 2 g and 2 g + 1. The momentum's cell is
// used only where a schedule cycles momentum.
//
// No schedule has a name here. lrfused/program turns torch's schedulers into segments; this header
// runs them, in fp64, in torch's order of operations.
#pragma once

#include <cstdint>

#include "numerics.h"

namespace lrfused {

// cell = x * (absolute ? a : cell - a) + b   at the epochs begin, begin + every, ... below end.
struct Segment {
  int64_t cell;
  int64_t begin, end, every;
  int64_t absolute;
  int64_t table;  // x = tables[table + k] at the k-th application, or the constant where table < 0
};
static_assert(sizeof(Segment) == 6 * sizeof(int64_t), "a row of the int64 segment table");

struct Constants {
  double x, a, b;
};
static_assert(sizeof(Constants) == 3 * sizeof(double), "a row of the fp64 constant table");

LRFUSED_HD double apply(const Segment& s, const Constants& c, const double* tables, int64_t epoch,
                        double value) {
  const int64_t since = epoch - s.begin, k = s.every == 1 ? since : since / s.every;
  const bool applies = since >= 0 && epoch < s.end && k * s.every == since;
  const double x = applies && s.table >= 0 ? tables[s.table + k] : c.x;
  const double next = x * (s.absolute ? c.a : value - c.a) + c.b;
  return applies ? next : value;  // chosen late: a GPU then reads the row at once
}

}  // namespace lrfused
