// Plain tensors: dense, of torch's own classes, with memory of their own.
#pragma once

#include <c10/core/TensorImpl.h>
#include <c10/core/impl/COWDeleter.h>

namespace lrfused {

// Return the dispatch keys of a plain tensor of a device type. Subclasses, sparse, lazy and
// conjugated tensors and tensors on other devices have other keys. Call it with the GIL.
c10::DispatchKeySet plain_keys(c10::DeviceType device);

// Return whether a mode of Python's sees every operation on tensors.
bool python_modes();

// Return whether torch's own step would raise an error of plain tensors: in a transform of
// functorch, such as grad, and in FakeTensorMode.
bool refuses_plain();

// Return the first element's address, or null if there is no memory, or it is copied on write.
inline void* address_of(const c10::TensorImpl* t) {
  const at::DataPtr& data =
      t->unsafe_storage().unsafeGetStorageImpl()->_mutable_data_ptr_no_checks();
  if (data.get() == nullptr || data.get_deleter() == c10::impl::cow::cow_deleter) return nullptr;
  return static_cast<char*>(data.get()) + t->storage_offset() * t->itemsize();
}

namespace detail {
template <class Slot>
auto object_of(const Slot& slot, int) -> decltype(slot.load_pyobj()) {
  return slot.load_pyobj();
}
template <class Slot>
auto object_of(const Slot& slot, long) -> decltype(slot._unchecked_untagged_pyobj()) {
  return slot._unchecked_untagged_pyobj();  // torch 2.9
}
}  // namespace detail

// Return the object that Python has, or had, of the tensor, or null.
inline PyObject* python_object(const c10::TensorImpl* t) {
  return detail::object_of(*t->pyobj_slot(), 0);
}

}  // namespace lrfused
