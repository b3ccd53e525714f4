// The step of an optimizer around which nothing is unusual, in one call from Python.
//
// In a training loop the caches hold the model. So what a small step costs is the lines of code and
// data that it reads, and Python's are most of them. This step reads few. It makes the same checks
// as the step in optimizer.py, and does nothing where that step has something else to do.
#pragma once

#include <pybind11/pybind11.h>

#include "../program.h"
#include "../slot.h"

namespace py = pybind11;

namespace lrfused {

struct C10_HIDDEN Direct {
  py::object object;  // of Python, that has the program
  Program& program;
  py::list read;  // [(group, key, value)]: entries of the groups that a schedule reads
  MasterForm master_form;
  bool use_fma;
  bool advance;          // whether a step advances the schedule
  bool by_hand;          // whether the loop advances it
  bool may_warn;         // whether Python must see a step that a torch scheduler has wrapped
  py::list hooks;        // [dict]: of all optimizers
  bool gave_up = false;  // where there are odd parameters

  // Make the optimizer's step. Returns false, having changed nothing, if it takes Python's.
  bool step(PyObject* optimizer);
  // Make a schedule step outside of an optimizer step; likewise.
  bool step_schedule(PyObject* optimizer);
};

// Return two functions of an optimizer: step, step_schedule.
py::tuple functions(Direct direct);

}  // namespace lrfused
