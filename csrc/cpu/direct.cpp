#include "direct.h"

#include "step.h"

namespace lrfused {
namespace {

class C10_HIDDEN OnCpu : public Maker {
 public:
  OnCpu(MasterForm master_form, bool use_fma) : master_form_(master_form), use_fma_(use_fma) {}

  bool step(const py::list& groups, const py::dict& state, Program& program,
            bool advance) override {
    static thread_local Found found;  // its memory serves every step
    gather(groups, state, program.cells(), 1.0, c10::kCPU, master_form_, found);
    gave_up = !found.valid || !found.odd.empty();
    if (gave_up || found.firsts != 0) return false;
    const auto held = releases_gil(found) ? hold(found) : Held();
    program.use();
    update(found, use_fma_);
    if (!advance) return true;
    program.advance();
    program.show(groups);
    return true;
  }

  bool step_schedule(Program& program) override {
    program.advance();
    return true;
  }

 private:
  const MasterForm master_form_;
  const bool use_fma_;
};

}  // namespace

std::unique_ptr<Maker> direct_on_cpu(MasterForm master_form, bool use_fma) {
  return std::make_unique<OnCpu>(master_form, use_fma);
}

}  // namespace lrfused
