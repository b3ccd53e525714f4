// Prefetching the lines that are read next.
#pragma once

#include <c10/core/TensorImpl.h>
#include <torch/csrc/autograd/python_variable.h>

#include <cstring>

namespace lrfused {

// The bytes [from, to) of the object at p: one line, or the two that they straddle.
inline void prefetch(const void* p, size_t from, size_t to) {
  __builtin_prefetch(static_cast<const char*>(p) + from);
  __builtin_prefetch(static_cast<const char*>(p) + to - 1);
}

template <class T>
void prefetch_whole(const T* object) {
  for (size_t from = 0; from < sizeof(T); from += 64)
    __builtin_prefetch(reinterpret_cast<const char*>(object) + from, 1);
}

// The offsets of the members that are read. Only prefetches depend on these offsets, no reads.
inline void prefetch_tensor(PyObject* object) { prefetch(object, 8, 24); }  // type, tensor
inline void prefetch_impl(const c10::TensorImpl* t) {
  prefetch(t, 16, 72);  // storage, meta, version, sizes of a vector
  prefetch(t, sizeof(c10::TensorImpl) - 32, sizeof(c10::TensorImpl));  // offset, numel, dtype, keys
}
inline void prefetch_meta(const c10::AutogradMetaInterface* meta) {
  prefetch(meta, 40, 48);
}  // gradient
inline void prefetch_storage(const c10::TensorImpl* t) {
  prefetch(t->unsafe_storage().unsafeGetStorageImpl(), 16, 40);  // address, deleter
}
// A tensor's version is in an object of its own, which the tensor points to.
inline const void* version_of(const c10::TensorImpl* t) {
  const void* counter;
  std::memcpy(&counter, &t->version_counter(), sizeof counter);
  return counter;
}
inline void prefetch_version(const c10::TensorImpl* t, const void* version) {
  __builtin_prefetch(&t->version_counter());
  __builtin_prefetch(version, 1);
}
inline void prefetch_dict(PyObject* dict) { prefetch(dict, 8, 48); }
inline void prefetch_keys(PyObject* dict) {
  prefetch(reinterpret_cast<PyDictObject*>(dict)->ma_keys, 8, 64);  // kind, entries
}

}  // namespace lrfused
