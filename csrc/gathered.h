// The tensors that a gather found, held, for backends that launch kernels with their addresses.
#pragma once

#include <string>

#include "gather.h"

namespace lrfused {

class C10_HIDDEN Gathered {
 public:
  // Read groups and state, for tensors of one device type. The addresses in the slots are multiples
  // of an element's size. Raises ValueError unless there are two cells for each group.
  Gathered(const py::list& groups, const py::dict& state, const std::vector<double>& cells,
           MasterForm master_form, c10::DeviceType device);

  bool valid() const { return found.valid; }
  int64_t firsts() const { return found.firsts; }
  int64_t places() const { return found.places; }
  py::list odd() const { return odd_; }  // [(group, param)]; all of them if not valid
  py::list params() const;               // of the slots
  at::Tensor slots() const;              // int64 [S, 12], on the CPU; the columns are in _C.pyi
  void bump_versions() const;            // of what the slots write

  Found found;

 private:
  Held held_;
  py::list odd_;
};

}  // namespace lrfused
