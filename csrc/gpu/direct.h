// The direct step on a GPU: ../direct.h.
#pragma once

#include "../direct.h"
#include "step.h"

namespace lrfused {

// `device` is a DeviceState, `images` the Images of what it has. `ready` is called before each step
// and returns the stream to launch on, or None if the step takes Python's.
std::unique_ptr<Maker> direct_on_gpu(MasterForm master_form, py::object device, py::object images,
                                     py::object ready);

}  // namespace lrfused
