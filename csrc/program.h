// A compiled program of all groups' schedules, run on tensors in host memory.
#pragma once

#include <ATen/core/Tensor.h>
#include <pybind11/pybind11.h>

#include <utility>
#include <vector>

#include "plateau.h"
#include "schedule.h"

namespace py = pybind11;

namespace lrfused {

// The tensors that a program moves belong to the optimizer and outlive any program.
struct Moved {
  at::Tensor cells;     // fp64 [2 G]: schedule.h
  at::Tensor epochs;    // int64 [G]
  at::Tensor used;      // fp64 [G]: the rates of the last step
  at::Tensor history;   // fp64 [N, 2 + G]: a ring of rows (epoch, whether a plateau cut, rates)
  at::Tensor recorded;  // int64 [1]: rows ever written
  at::Tensor plateau_states;  // fp64 [P, 5]
  at::Tensor observed;        // int64 [1]: metrics ever fed
};

// The schedules of all groups as tables.
struct ProgramTables {
  at::Tensor segments;       // int64 [S, 6]
  at::Tensor constants;      // fp64 [S, 3]
  at::Tensor tables;         // fp64 [T]
  at::Tensor plateau_cells;  // int64 [P]
  at::Tensor plateaus;       // fp64 [P, 10]
};

// The optimizer's lists of groups and of the values in their dicts. Python may change them.
struct C10_HIDDEN Shown {
  py::list groups;     // the groups' dicts
  py::list rates;      // each group's rate
  py::list momenta;    // empty, or each group's momentum, None where no schedule cycles it
  py::list templates;  // each group's place without its epoch, None where it has no schedule
  py::list places;     // each group's place, or None
  py::list kept;       // empty, or rates, momenta and places as the last optimizer step showed them
};

class C10_HIDDEN Program {
 public:
  // `steps` is how many schedule steps were compiled.
  Program(Moved moved, ProgramTables compiled, Shown shown, int64_t steps);

  void use();                // note the rates used by this step
  void advance();            // one schedule step of every group
  bool feed(double metric);  // one metric for every plateau; whether any cut its rate
  int64_t fed() const { return *moved_.observed.const_data_ptr<int64_t>(); }  // metrics, ever
  // Put the plateaus' states, and how many metrics were fed, into the templates.
  void note_plateaus(int64_t metrics) const;
  void keep() const;                         // keep what is shown now, if nothing is kept
  void forget() const;                       // keep nothing
  void show(const py::list& groups) const;   // put rates, momenta, places into groups and lists
  bool shows(const py::list& groups) const;  // whether these groups have what was put there
  std::vector<double> current_cells() const;
  const double* cells() const { return moved_.cells.const_data_ptr<double>(); }
  int64_t groups() const { return groups_; }
  int traverse(visitproc visit, void* arg) const;  // for Python's garbage collector

  int64_t left;  // schedule steps still compiled

 private:
  void record(bool cut);

  Moved moved_;
  ProgramTables compiled_;
  Shown shown_;
  std::vector<std::pair<int64_t, std::vector<int64_t>>> plateaus_of_;  // by group

  // Addresses of the tensors' numbers, since asking a tensor for one takes several checks. The
  // cells have none here: the user may have a view of them, and share_memory_() moves their
  // storage.
  int64_t groups_;
  double *used_, *history_;
  int64_t *epochs_, *recorded_;
  const Segment* segments_;
  const Constants* constants_;
  const double* tables_;
};

}  // namespace lrfused
