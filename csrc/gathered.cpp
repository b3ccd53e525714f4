#include "gathered.h"

#include <ATen/EmptyTensor.h>

#include <array>

namespace lrfused {
namespace {

using Columns = std::array<int64_t, 12>;

int64_t address(const void* p) { return static_cast<int64_t>(reinterpret_cast<uintptr_t>(p)); }

Columns columns_of(const Slot& s) {
  return {address(s.param),
          address(s.grad),
          address(s.buffer),
          address(s.master),
          s.numel,
          s.group,
          int64_t(s.mode),
          s.place,
          int64_t(s.dtype),
          int64_t(s.grad_dtype),
          int64_t(s.master_form),
          s.device};
}

}  // namespace

Gathered::Gathered(const py::list& groups, const py::dict& state, const std::vector<double>& cells,
                   MasterForm master_form, c10::DeviceType device) {
  TORCH_CHECK_VALUE(cells.size() == 2 * groups.size(), "there are ", cells.size(), " cells for ",
                    groups.size(), " groups");
  found.aligned = true;
  gather(groups, state, cells.data(), 1.0, device, master_form, found);
  held_ = hold(found);
  odd_ = odd_params(found);
}

py::list Gathered::params() const {
  py::list list;
  for (const Tensors& t : found.tensors) list.append(py::reinterpret_borrow<py::object>(t.object));
  return list;
}

at::Tensor Gathered::slots() const {
  const auto count = static_cast<int64_t>(found.slots.size());
  // Not at::empty, which a dispatch mode of the caller would answer.
  const at::Tensor table(at::detail::empty_cpu({count, std::tuple_size_v<Columns>}, at::kLong));
  auto* row = reinterpret_cast<Columns*>(table.mutable_data_ptr<int64_t>());
  for (const Slot& slot : found.slots) *row++ = columns_of(slot);
  return table;
}

void Gathered::bump_versions() const {
  for (const Tensors& t : found.tensors) lrfused::bump_versions(t);
}

}  // namespace lrfused
