// A group's hyper-parameters, read from its dict; its rate and momentum, shown there.
#pragma once

#include <pybind11/pybind11.h>

#include "slot.h"

namespace py = pybind11;

namespace lrfused {

// Interned keys of a group's dict.
namespace keys {
extern PyObject* const params;
extern PyObject* const lr;
extern PyObject* const momentum;
extern PyObject* const dampening;
extern PyObject* const weight_decay;
extern PyObject* const nesterov;
extern PyObject* const maximize;
extern PyObject* const schedule;
// Of a group's place.
extern PyObject* const epoch;
extern PyObject* const metrics;
extern PyObject* const plateaus;
}  // namespace keys

// A dict's value, borrowed; a KeyError if there is none.
PyObject* item(PyObject* dict, PyObject* key);

// Read a group. Clears `valid` for a value that is not a number or not in float32's range; Python
// then raises the error.
Group read_group(PyObject* dict, double rate, double inv_scale, bool& valid);

// Whether two lists hold the same objects.
bool is_same(const py::list& a, const py::list& b);

// Whether each group has a list's object under a key; None stands for no entry, or for any.
bool have(const py::list& groups, PyObject* key, const py::list& values, bool none_is_any = false);

// Put each group's rate, cells[2 g], into its dict and into the list `rates`, the same object; a
// tensor there is the user's, or the cell itself, and is filled.
void show_rates(const py::list& groups, py::handle rates, const double* cells);

// Put each group's momentum, cells[2 g + 1], likewise, where `momenta` is not None.
void show_momenta(const py::list& groups, py::handle momenta, const double* cells);

// Put the place of each group's schedule, its template's entries and its epoch, into its dict and
// into the list `places`, the same object, where `templates` is not None. The place that is there
// is changed if nobody else has it, else replaced.
void show_places(const py::list& groups, py::handle templates, py::handle places,
                 const int64_t* epochs);

// Let a group's template have other states of its plateaus.
void note_plateaus(const py::list& templates, int64_t group, int64_t metrics,
                   const py::list& states);

// Return a list of the same objects.
py::object copy(const py::list& list);

// Remove all objects of a list.
void clear(const py::list& list);

}  // namespace lrfused
