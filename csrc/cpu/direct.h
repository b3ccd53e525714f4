// The direct step on the CPU: ../direct.h.
#pragma once

#include "../direct.h"
#include "../slot.h"

namespace lrfused {

// `use_fma`: as for the step.
std::unique_ptr<Maker> direct_on_cpu(MasterForm master_form, bool use_fma);

}  // namespace lrfused
