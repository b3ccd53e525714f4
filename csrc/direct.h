// The step of an optimizer around which nothing is unusual, in one call from Python.
//
// In a training loop the caches hold the model. So what a small step costs is the lines of code and
// data that it reads, and Python's are most of them. This step reads few. It makes the same checks
// as the step in optimizer.py, and does nothing where that step has something else to do.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>
#include <optional>

#include "program.h"

namespace py = pybind11;

namespace lrfused {

// The part of a direct step that a type of device makes in its own way. Each function returns
// false, having changed nothing, if Python must make the step.
class C10_HIDDEN Maker {
 public:
  virtual ~Maker() = default;
  // Note the rates used, and update; then, if `advance`, advance the program and show its rates.
  virtual bool step(const py::list& groups, const py::dict& state, Program& program,
                    bool advance) = 0;
  // Advance the program.
  virtual bool step_schedule(Program& program) = 0;
  // Visit the Python objects that this holds.
  virtual int traverse(visitproc visit, void* arg) const = 0;

  static constexpr int kRest = 64;
  int rest = 0;  // steps left to Python since one found what takes it, such as an odd parameter
};

struct C10_HIDDEN Direct {
  std::unique_ptr<Maker> maker;
  py::object object;  // the Python object that owns the program
  Program& program;
  py::list read;    // [(group, key, value)]: entries of the groups that a schedule reads
  bool advance;     // whether a step advances the schedule
  bool by_hand;     // whether the loop advances it
  bool may_warn;    // whether Python must see a step that a torch scheduler has wrapped
  py::dict torchs;  // the module of torch that has the hooks of all optimizers
  // How many metrics were fed before these plateaus were loaded; nothing if Python must feed them.
  std::optional<int64_t> fed_before;

  // Make the optimizer's step. Returns false, having changed nothing, if Python must make it.
  bool step(PyObject* optimizer);
  // Make a schedule step outside of an optimizer step; likewise.
  bool step_schedule(PyObject* optimizer);
  // Feed every plateau one metric; likewise.
  bool observe(PyObject* optimizer, PyObject* metric);

  int traverse(visitproc visit, void* arg) const;  // for Python's garbage collector

 private:
  // Return the groups, if they have what the program and the schedules put there or read there.
  std::optional<py::list> known_groups(PyObject* list) const;
};

// Return three functions of an optimizer: step, step_schedule, observe.
py::tuple functions(Direct direct);

}  // namespace lrfused
