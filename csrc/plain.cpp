#include "plain.h"

#include <ATen/PythonTorchFunctionTLS.h>
#include <ATen/ops/empty.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <c10/core/impl/TorchDispatchModeTLS.h>

#include <map>

namespace lrfused {

c10::DispatchKeySet plain_keys(c10::DeviceType device) {
  static std::map<c10::DeviceType, c10::DispatchKeySet> known;  // guarded by the GIL
  const auto found = known.find(device);
  if (found != known.end()) return found->second;
  // The caller's modes, such as inference mode, would give the tensor other keys.
  const c10::InferenceMode normal(false);
  const c10::impl::ExcludeDispatchKeyGuard plain(
      c10::DispatchKeySet({c10::DispatchKey::Python, c10::DispatchKey::PythonTLSSnapshot}));
  return known[device] = at::empty({0}, at::TensorOptions().device(device)).key_set();
}

bool python_modes() {
  return at::impl::torch_function_mode_enabled() ||
         c10::impl::TorchDispatchModeTLS::any_modes_set();
}

bool refuses_plain() {
  using Modes = c10::impl::TorchDispatchModeTLS;
  return c10::impl::tls_is_dispatch_key_included(
             c10::DispatchKey::FuncTorchDynamicLayerFrontMode) ||
         (Modes::any_modes_set() && Modes::get_mode(c10::impl::TorchDispatchModeKey::FAKE));
}

}  // namespace lrfused
