// Plain tensors: dense, of torch's own classes, with memory of their own.
#pragma once

#include <c10/core/TensorImpl.h>

namespace lrfused {

// Return the dispatch keys of a plain tensor of a device type. Subclasses, sparse, lazy and
// conjugated tensors and tensors on other devices have other keys. Call it with the GIL.
c10::DispatchKeySet plain_keys(c10::DeviceType device);

// Return the first element's address, or null if there is no memory, or it is copied on write.
void* address_of(const c10::TensorImpl* t);

}  // namespace lrfused
