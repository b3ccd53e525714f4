// ReduceLROnPlateau as data: a row of constants and a state, and what one metric does to them.
//
// As in schedule.h, everything is computed in fp64, in torch's order of operations.
#pragma once

#include "numerics.h"

namespace lrfused {

struct Plateau {
  double maximize, absolute;  // mode and threshold_mode, as 0 or 1
  double factor, patience, threshold, cooldown, min_lr, eps;
  double accumulate;  // metrics for each decision
  double ignore_nan;  // 0 or 1
};
static_assert(sizeof(Plateau) == 10 * sizeof(double), "a row of the fp64 plateau table");

struct PlateauState {
  double best, num_bad_epochs, cooldown_counter;
  double sum, count;  // of the metrics since the last decision
};
static_assert(sizeof(PlateauState) == 5 * sizeof(double), "a row of the fp64 plateau state");

// NaN compares false, so it is never better, whatever the mode.
LRFUSED_HD bool is_better(const Plateau& c, double metric, double best) {
  if (c.maximize != 0)
    return metric > (c.absolute != 0 ? best + c.threshold : best * (c.threshold + 1.0));
  return metric < (c.absolute != 0 ? best - c.threshold : best * (1.0 - c.threshold));
}

// One metric: compare, count, cool down, cut. Returns the rate after it.
LRFUSED_HD double observe(const Plateau& c, PlateauState& s, double metric, double lr) {
  if (c.ignore_nan != 0 && metric != metric) return lr;
  if (c.accumulate > 1) {
    s.sum += metric;
    s.count += 1;
    if (s.count < c.accumulate) return lr;
    metric = s.sum / s.count;
    s.sum = s.count = 0;
  }
  if (is_better(c, metric, s.best)) {
    s.best = metric;
    s.num_bad_epochs = 0;
  } else {
    s.num_bad_epochs += 1;
  }
  if (s.cooldown_counter > 0) {
    s.cooldown_counter -= 1;
    s.num_bad_epochs = 0;
  }
  if (!(s.num_bad_epochs > c.patience)) return lr;
  s.cooldown_counter = c.cooldown;
  s.num_bad_epochs = 0;
  double cut = lr * c.factor;
  if (c.min_lr > cut) cut = c.min_lr;  // Python's max: the first unless the second is larger
  return lr - cut > c.eps ? cut : lr;
}

}  // namespace lrfused
