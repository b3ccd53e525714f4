// A compiled program of all groups' schedules, run on tensors that live in host memory.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "schedule.h"

namespace lrfused {

// The cells (rates, epochs, plateau_states) belong to the optimizer and outlive any program.
class Program {
 public:
  // rates fp64 [G], epochs int64 [G]; segments int64 [S, 6] sorted by group, constants fp64 [S, 3],
  // tables fp64 [T]; plateau_groups int64 [P], plateaus fp64 [P, 8], plateau_states fp64 [P, 3].
  Program(at::Tensor rates, at::Tensor epochs, at::Tensor segments, at::Tensor constants,
          at::Tensor tables, at::Tensor plateau_groups, at::Tensor plateaus,
          at::Tensor plateau_states);

  void advance();               // one schedule step of every group
  void observe(double metric);  // one metric for every plateau
  std::vector<double> current_rates() const;
  const double* rates() const { return rates_.const_data_ptr<double>(); }
  int64_t groups() const { return rates_.numel(); }

 private:
  at::Tensor rates_, epochs_, segments_, constants_, tables_, plateau_groups_, plateaus_,
      plateau_states_;
};

}  // namespace lrfused
