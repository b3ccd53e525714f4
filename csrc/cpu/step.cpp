// One step on the CPU, in order: gather, hold, check, norm and clip, create state, update, put
// state, odd parameters, advance.
#include "step.h"

#include <pybind11/stl.h>

#include <cmath>
#include <limits>

#include "../create.h"
#include "../norm.h"
#include "../prefetch.h"
#include "passes.h"

namespace lrfused {
namespace {

// Lets other Python threads run, while it lives, if the step is a long one.
class ReleaseGil {
 public:
  explicit ReleaseGil(const Found& found) {
    if (releases_gil(found)) released_.emplace();
  }

 private:
  std::optional<py::gil_scoped_release> released_;
};

}  // namespace

double norm_of(const Found& found, double inv_scale, const py::object& update_odd) {
  std::vector<double> sums(found.places, 0.0);
  if (!update_odd.is_none()) {
    const auto others = update_odd.attr("square_sums")().cast<std::vector<double>>();
    for (size_t i = 0; i < others.size(); ++i) sums[found.odd[i].place] = others[i];
  }
  const ReleaseGil released(found);
  square_sums_cpu(found.slots.data(), static_cast<int64_t>(found.slots.size()), inv_scale,
                  sums.data());
  return std::sqrt(ordered_sum(sums.data(), found.places));
}

void clip(std::vector<Group>& groups, double coefficient) {
  for (Group& group : groups) {
    group.hypers.fp64.clip = coefficient;
    group.hypers.fp32.clip =
        std::isnan(coefficient) ? std::numeric_limits<float>::quiet_NaN() : float(coefficient);
    group.scale |= coefficient != 1;
  }
}

bool releases_gil(const Found& found) { return found.numel >= 1 << 20; }

void update(const Found& found, bool use_fma) {
  const ReleaseGil released(found);
  const Tensors* tensors = found.tensors.data();  // not `found`: each thread would see its own
  update_cpu(
      found.slots.data(), static_cast<int64_t>(found.slots.size()), found.groups.data(), use_fma,
      [=](int64_t i) {
        const Tensors& t = tensors[i];
        prefetch_version(t.param, t.version);
        if (t.buffer) prefetch_version(t.buffer, t.buffer_version);
      },
      [=](int64_t i) { bump_versions(tensors[i]); });
}

StepResult step(const py::list& groups, const py::dict& state, Program& program, double inv_scale,
                std::optional<double> max_norm, bool skip, MasterForm master_form, bool advance,
                bool use_fma, const py::function& odd) {
  TORCH_CHECK_VALUE(static_cast<int64_t>(groups.size()) == program.groups(),
                    "the program was compiled for ", program.groups(), " groups, not ",
                    groups.size());
  // Gather.
  SpareFound spare;
  Found& found = *spare;
  found.aligned = false;
  gather(groups, state, program.cells(), inv_scale, c10::kCPU, master_form, found);
  const bool has_odd = !found.odd.empty() || !found.valid;

  // Hold references where other Python code may run before the update, and drop a gradient.
  const auto held = has_odd || releases_gil(found) ? hold(found) : Held();

  // Check the odd parameters.
  py::object update_odd = py::none();
  if (has_odd) update_odd = odd(odd_params(found));

  // Take the norm, and clip.
  double norm = 0, coefficient = 1;
  if (max_norm) {
    norm = norm_of(found, inv_scale, update_odd);
    if (skip && !std::isfinite(norm)) return {false, false, norm};
    coefficient = clip_coefficient(norm, *max_norm);
    clip(found.groups, coefficient);
  }

  // Create momentum buffers and masters for first steps.
  const std::vector<at::Tensor> created = create(found, state);

  // Note the rates used, and update.
  program.use();
  update(found, use_fma);

  // Put the state, and update the odd parameters.
  put(found, created, state);
  if (has_odd) update_odd(coefficient);

  // Advance and show.
  if (advance) {
    program.advance();
    program.show(groups);
  }
  return {true, !created.empty(), norm};
}

}  // namespace lrfused
