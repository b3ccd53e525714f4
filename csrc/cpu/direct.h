// The direct step on the CPU: ../direct.h.
#pragma once

#include <optional>

#include "../direct.h"
#include "../slot.h"

namespace lrfused {

// `use_fma`, `max_norm`: as for the step. `scaling`, an object of Python, is given the norm.
std::unique_ptr<Maker> direct_on_cpu(MasterForm master_form, bool use_fma,
                                     std::optional<double> max_norm, py::object scaling);

}  // namespace lrfused
