// A kernel's error, or a difference from the host.
#pragma once

#include <stdexcept>

namespace lrfused::ptx {

struct Fault : std::runtime_error {
  using std::runtime_error::runtime_error;
};

}  // namespace lrfused::ptx
