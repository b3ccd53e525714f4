#include "step.h"

#include <ATen/ops/empty.h>
#include <c10/util/irange.h>
#include <torch/csrc/utils/pybind.h>

#include <algorithm>

#include "../create.h"
#include "../cuda/norm.h"
#include "pack.h"

namespace lrfused {
namespace {

uint32_t* unsigned_of(const at::Tensor& t) {
  return reinterpret_cast<uint32_t*>(t.mutable_data_ptr<int32_t>());
}

cuda::Clip* clip_of(const at::Tensor& t) {
  return reinterpret_cast<cuda::Clip*>(t.mutable_data_ptr<double>());
}

const float* one_float(const char* name, const at::Tensor& t, c10::Device device) {
  if (!t.defined()) return nullptr;
  TORCH_CHECK_VALUE(t.scalar_type() == at::kFloat && t.numel() == 1 && t.device() == device, name,
                    " must be one float32 on ", device);
  return t.const_data_ptr<float>();
}

}  // namespace

DeviceStep::DeviceStep(const py::list& groups, const py::dict& state,
                       const std::vector<double>& cells, MasterForm master_form)
    : gathered_(groups, state, cells, master_form, device_type()) {}

std::vector<int64_t> DeviceStep::devices() const {
  std::vector<int64_t> indices;
  for (const Slot& s : gathered_.found.slots)
    if (std::find(indices.begin(), indices.end(), s.device) == indices.end())
      indices.push_back(s.device);
  return indices;
}

void DeviceStep::scale(double inv_scale, std::optional<at::Tensor> grad_scale,
                       std::optional<at::Tensor> found_inf) {
  inv_scale_ = inv_scale;
  grad_scale_ = grad_scale.value_or(at::Tensor());
  found_inf_ = found_inf.value_or(at::Tensor());
}

cuda::Scaler DeviceStep::scaler_on(const DeviceState& device) const {
  return {inv_scale_, one_float("grad_scale", grad_scale_, device.device_),
          one_float("found_inf", found_inf_, device.device_)};
}

at::Tensor DeviceStep::norm(DeviceState& device, int64_t stream, double max_norm, bool recording) {
  TORCH_CHECK_VALUE(valid() && odd().empty() && devices().size() == 1,
                    "a norm needs plain tensors on one device");
  const int64_t places = gathered_.found.places;
  const auto gradients = gradients_of(gathered_.found.slots, places);

  // Make room for the sums.
  int64_t pieces = 0;
  for (const cuda::Gradient& g : gradients) pieces += cuda::pieces_of(g.numel);
  const auto [sums, counts] = std::pair(device.sums_, device.counts_);
  TORCH_CHECK(
      !recording || (sums.defined() && sums.numel() >= pieces + places && counts.numel() >= places),
      "this step cannot be captured: max_grad_norm was set since the last step; make a "
      "step before");
  device.make_room(pieces, places);
  clip_ = recording ? device.clip_
                    : at::empty({2}, at::TensorOptions().dtype(at::kDouble).device(device.device_));
  device.captured_ |= recording;

  cuda::Norm norm{};
  norm.scaler = scaler_on(device);
  norm.max_norm = max_norm;
  norm.pieces = device.sums_.mutable_data_ptr<double>();
  norm.sums = norm.pieces + pieces;
  norm.counts = unsigned_of(device.counts_);
  norm.total = places;
  norm.clip = clip_of(clip_);
  norm.ticket = unsigned_of(device.ticket_);

  // Launch once, or, with tables in the kernel's argument, as often as it takes.
  const size_t each = fit(device.room_, cuda::Gradients::size(0), cuda::Gradients::size(1));
  const bool inlined = recording || gradients.size() <= each;
  for (size_t begin = 0; begin < gradients.size();) {
    const size_t rest = gradients.size() - begin, count = inlined ? std::min(each, rest) : rest;
    auto [bytes, table, items, only] = pack(gradients.data() + begin, count);
    table.bytes = inlined ? bytes.data() : device.gradients_.put(bytes, device.device_);
    norm.begin = static_cast<int64_t>(begin);
    begin += count;
    const cuda::Place place = cuda::place_of(inlined, bytes.size());
    const char* error = cuda::launch_norm(
        {device.device_.index(), reinterpret_cast<void*>(stream), place, items}, table, norm);
    TORCH_CHECK(error == nullptr, "the norm could not be launched: ", error);
  }
  return clip_;
}

void DeviceStep::create() { created_ = lrfused::create(gathered_.found); }

void DeviceStep::launch(DeviceState& device, int64_t stream,
                        const std::vector<int32_t>& momentum_cells, bool advances, bool always,
                        bool finite, bool recording) {
  const std::vector<Group>& groups = gathered_.found.groups;
  TORCH_CHECK_VALUE(momentum_cells.size() == groups.size(), "momentum_cells must name ",
                    groups.size(), " cells");
  std::vector<cuda::Row> rows;
  for (const auto g : c10::irange(groups.size()))
    rows.push_back(row_of(groups[g], momentum_cells[g]));

  // The slots on this device.
  std::vector<const Slot*> slots;
  bool masters = false;
  for (const Slot& s : gathered_.found.slots) {
    if (s.numel == 0 || !(device.device_.is_cpu() || s.device == device.device_.index())) continue;
    slots.push_back(&s);
    masters |= s.master_form != MasterForm::none;
  }

  cuda::Step step{};
  step.scaler = scaler_on(device);
  step.clip = clip_.defined() ? clip_of(clip_) : nullptr;
  step.always = always;
  step.finite = finite;

  // Launch once, or, with tables in the kernel's argument, as often as it takes.
  const size_t most = fit(device.room_, cuda::Table::size(rows.size(), 0, masters),
                          cuda::Table::size(rows.size(), 1, masters));
  TORCH_CHECK(!recording || most > 0, "this step cannot be captured: it has too many groups, ",
              rows.size());
  const bool inlined = most > 0 && (recording || slots.size() <= most);
  const size_t each = inlined ? most : std::max<size_t>(1, slots.size());
  size_t begin = 0;
  do {
    const size_t count = std::min(each, slots.size() - begin);
    auto [bytes, table, items, only] = pack(rows, slots.data() + begin, count);
    begin += count;
    table.bytes = inlined ? bytes.data() : device.table_.put(bytes, device.device_);
    step.use = begin == slots.size();  // the last launch commits
    step.advances = step.use && advances;
    const cuda::Place place = cuda::place_of(inlined, bytes.size());
    device.launch({0, reinterpret_cast<void*>(stream), place, items}, table, only, step);
  } while (begin < slots.size());
}

void DeviceStep::finish(const py::dict& state) {
  gathered_.bump_versions();
  put(gathered_.found, created_, state);
}

}  // namespace lrfused
