// A random schedule with its tensors: csrc/cuda/commit.h.
#pragma once

#include <string>
#include <vector>

#include "csrc/cuda/commit.h"
#include "memory.h"
#include "random.h"

namespace lrfused::ptx {

// A copy has the same state, in memory of its own.
class Program {
 public:
  Program(int64_t groups, Random& random);

  cuda::Schedule schedule();
  void add_regions(std::vector<Region>& to);
  int64_t groups() const { return int64_t(epochs_.size()); }

  // Throws a Fault if the states differ.
  void check_equal(const Program& expected) const;

 private:
  void add_segment(int64_t cell, Random& random);
  void add_plateau(Random& random);

  std::vector<double> cells_, used_, tables_, history_;
  std::vector<int64_t> epochs_, recorded_, observed_, first_segments_, first_plateaus_;
  std::vector<Segment> segments_;
  std::vector<Constants> constants_;
  std::vector<Plateau> plateaus_;
  std::vector<PlateauState> states_;
  int64_t length_ = 0;
};

}  // namespace lrfused::ptx
