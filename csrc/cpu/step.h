// The step on the CPU; gpu/step.h is the step on a GPU, phase by phase.
#pragma once

#include <optional>
#include <tuple>

#include "../gather.h"
#include "../program.h"

namespace lrfused {

// (updated, created state, norm). With `skip`, a non-finite norm gives updated = false; norm is 0
// without max_norm.
using StepResult = std::tuple<bool, bool, double>;

// Update every parameter that has a gradient; then, if `advance`, advance the program and show its
// rates in the groups. Everything that can be refused is refused before the first write.
//
// `odd` is called with [(group, param)], the parameters that are not plain streams, before the
// update. It returns an object: square_sums() gives the sum of the squares of each one's gradient,
// and a call with the clipping coefficient updates them. `use_fma`: whether a * b + c is rounded
// once, as in torch's own CPU kernels.
StepResult step(const py::list& groups, const py::dict& state, Program& program, double inv_scale,
                std::optional<double> max_norm, bool skip, MasterForm master_form, bool advance,
                bool use_fma, const py::function& odd);

// Return whether an update lets other Python threads run: they may drop tensors that are not held.
bool releases_gil(const Found& found);

// Return the norm of all gradients times inv_scale; those of odd parameters are summed by Python.
double norm_of(const Found& found, double inv_scale, const py::object& update_odd);

// Let an update multiply gradients by a coefficient.
void clip(std::vector<Group>& groups, double coefficient);

// Update every parameter that was found to be plain.
void update(const Found& found, bool use_fma);

}  // namespace lrfused
