// Tensors in host memory, each with the numbers that a device has of it.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

namespace lrfused {

// A host program and a device make the same moves, each on its own numbers; what else writes the
// host's numbers, by whatever way, is found here and must be uploaded. The numbers are few, so that
// a look at them costs some nanoseconds.
class Images {
 public:
  // Look at these tensors from now on. The device keeps its numbers, unless `anew`.
  void watch(std::vector<at::Tensor> tensors, bool anew);

  bool unchanged() const;                // whether the device has every tensor's numbers
  std::vector<int64_t> changed() const;  // the indices of the tensors whose numbers it lacks

  void note(int64_t i);  // the device has tensor i's numbers now
  void note_moved();     // it has made a move that the host has made: what it had it has again

 private:
  bool has(size_t i) const;

  std::vector<at::Tensor> tensors_;
  std::vector<std::optional<std::vector<char>>> known_;
};

}  // namespace lrfused
