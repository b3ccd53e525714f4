#include "direct.h"

#include "../norm.h"
#include "step.h"

namespace lrfused {
namespace {

class C10_HIDDEN OnCpu : public Maker {
 public:
  OnCpu(MasterForm master_form, bool use_fma, std::optional<double> max_norm, py::object scaling)
      : master_form_(master_form),
        use_fma_(use_fma),
        max_norm_(max_norm),
        scaling_(std::move(scaling)) {}

  bool step(const py::list& groups, const py::dict& state, Program& program,
            bool advance) override {
    SpareFound spare;
    Found& found = *spare;
    found.aligned = false;
    gather(groups, state, program.cells(), 1.0, c10::kCPU, master_form_, found);
    if (!found.valid || !found.odd.empty()) rest = kRest;
    if (rest > 0 || found.firsts != 0) return false;
    const auto held = releases_gil(found) ? hold(found) : Held();
    double norm = 0;
    if (max_norm_) {
      norm = norm_of(found, 1.0, py::none());
      clip(found.groups, clip_coefficient(norm, *max_norm_));
    }
    program.use();
    update(found, use_fma_);
    if (advance) {
      program.advance();
      program.show(groups);
    }
    if (max_norm_) scaling_.attr("norm") = norm;  // last: what it replaces may run Python code
    return true;
  }

  bool step_schedule(Program& program) override {
    program.advance();
    return true;
  }

  int traverse(visitproc visit, void* arg) const override {
    Py_VISIT(scaling_.ptr());
    return 0;
  }

 private:
  const MasterForm master_form_;
  const bool use_fma_;
  const std::optional<double> max_norm_;
  const py::object scaling_;
};

}  // namespace

std::unique_ptr<Maker> direct_on_cpu(MasterForm master_form, bool use_fma,
                                     std::optional<double> max_norm, py::object scaling) {
  return std::make_unique<OnCpu>(master_form, use_fma, max_norm, std::move(scaling));
}

}  // namespace lrfused
