// A compiled program of all groups' schedules, run on tensors that live in host memory.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "schedule.h"

namespace lrfused {

// The tensors that a program moves belong to the optimizer and outlive any program.
struct Moved {
  at::Tensor cells;     // fp64 [2 G]: schedule.h
  at::Tensor epochs;    // int64 [G]
  at::Tensor used;      // fp64 [G]: the rates of the last step
  at::Tensor history;   // fp64 [N, 2 + G]: a ring of rows (epoch, whether a plateau cut, rates)
  at::Tensor recorded;  // int64 [1]: rows ever written
  at::Tensor plateau_states;  // fp64 [P, 5]
};

class Program {
 public:
  // segments int64 [S, 6], constants fp64 [S, 3], tables fp64 [T]; plateau_cells int64 [P],
  // plateaus fp64 [P, 10].
  Program(Moved moved, at::Tensor segments, at::Tensor constants, at::Tensor tables,
          at::Tensor plateau_cells, at::Tensor plateaus);

  void use();                   // note the rates that the step now made uses
  void advance();               // one schedule step of every group
  bool observe(double metric);  // one metric for every plateau; whether any cut its rate
  std::vector<double> current_cells() const;
  const double* cells() const { return moved_.cells.const_data_ptr<double>(); }
  double rate(int64_t group) const { return cells()[2 * group]; }
  int64_t groups() const { return moved_.epochs.numel(); }

 private:
  void record(bool cut);

  Moved moved_;
  at::Tensor segments_, constants_, tables_, plateau_cells_, plateaus_;
};

}  // namespace lrfused
