#include "state.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <c10/util/irange.h>

#include <algorithm>
#include <cstring>
#include <limits>

#include "../cuda/norm.h"
#include "pack.h"

namespace lrfused {
namespace {

at::TensorOptions on(c10::Device device, at::ScalarType dtype) {
  return at::TensorOptions().dtype(dtype).device(device);
}

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

cuda::Scaler Scaling::on(c10::Device device) const {
  return {inv_scale, one_float("grad_scale", grad_scale, device),
          one_float("found_inf", found_inf, device)};
}

c10::DeviceType device_type() { return cuda::on_gpu() ? c10::kCUDA : c10::kCPU; }

const char* UploadedBytes::put(const std::vector<char>& bytes, c10::Device device) {
  const auto size = static_cast<int64_t>(bytes.size());
  if (bytes != last_) {
    if (!there_.defined() || there_.numel() < size)
      there_ = at::empty({2 * size}, on(device, at::kByte));
    // The pinned copy goes back to torch's allocator, which keeps it until the transfer is over.
    const at::Tensor host =
        at::empty({size}, at::TensorOptions().dtype(at::kByte).pinned_memory(cuda::on_gpu()));
    memcpy(host.mutable_data_ptr(), bytes.data(), bytes.size());
    there_.narrow(0, 0, size).copy_(host, /*non_blocking=*/true);
    last_ = bytes;
  }
  return static_cast<const char*>(there_.const_data_ptr());
}

DeviceState::DeviceState(int64_t index, int driver)
    : device_(device_type(), cuda::on_gpu() ? static_cast<c10::DeviceIndex>(index) : -1),
      room_(cuda::room_of(driver)),
      ticket_(at::zeros({1}, on(device_, at::kInt))),
      clip_(at::full({2}, std::numeric_limits<double>::quiet_NaN(), on(device_, at::kDouble))) {
  for (const auto load : {cuda::load_step, cuda::load_norm}) {
    const char* error = load(device_.index(), room_);
    TORCH_CHECK(error == nullptr, "the kernels could not be loaded on ", device_, ": ", error);
  }
}

void DeviceState::bind(std::vector<at::Tensor> t, std::vector<int32_t> momentum_cells,
                       int64_t length) {
  TORCH_CHECK_VALUE(t.size() == 13, "a schedule on a device needs 13 tensors, got ", t.size());
  for (const at::Tensor& tensor : t)
    TORCH_CHECK_VALUE(tensor.device() == device_ && tensor.is_contiguous(),
                      "a schedule's tensors must be contiguous, on ", device_);
  bound_ = std::move(t);
  momentum_cells_ = std::move(momentum_cells);
  const auto doubles = [&](size_t i) { return bound_[i].mutable_data_ptr<double>(); };
  const auto integers = [&](size_t i) { return bound_[i].mutable_data_ptr<int64_t>(); };
  schedule_ = {doubles(0),
               integers(1),
               doubles(2),
               integers(3),
               reinterpret_cast<const Segment*>(integers(4)),
               reinterpret_cast<const Constants*>(doubles(5)),
               doubles(6),
               doubles(7),
               integers(8),
               integers(9),
               integers(10),
               reinterpret_cast<const Plateau*>(doubles(11)),
               reinterpret_cast<PlateauState*>(doubles(12)),
               static_cast<int64_t>(momentum_cells_.size()),
               length};
}

void DeviceState::reserve(const std::vector<int64_t>& numels) {
  int64_t pieces = 0;
  for (const int64_t numel : numels) pieces += cuda::pieces_of(numel);
  make_room(pieces, static_cast<int64_t>(numels.size()));
}

void DeviceState::make_room(int64_t pieces, int64_t places) {
  const auto holds = [](const at::Tensor& t, int64_t count) {
    return t.defined() && t.numel() >= count;
  };
  if (holds(sums_, pieces + places) && holds(counts_, places)) return;
  if (captured_) outgrown_.insert(outgrown_.end(), {sums_, counts_});
  sums_ = at::empty({2 * (pieces + places)}, on(device_, at::kDouble));
  counts_ = at::zeros({2 * places}, on(device_, at::kInt));
}

void DeviceState::launch(cuda::Launch launch, const cuda::Table& table, int only, cuda::Step step) {
  launch.device = device_.index();
  step.schedule = schedule_;
  step.ticket = reinterpret_cast<uint32_t*>(ticket_.mutable_data_ptr<int32_t>());
  const char* error = cuda::launch_step(launch, table, only, step);
  TORCH_CHECK(error == nullptr, "the step could not be launched: ", error);
}

bool DeviceState::has(const Slot& slot) const {
  return device_.is_cpu() || slot.device == device_.index();
}

bool DeviceState::has_all(const Found& found) const {
  for (const Slot& slot : found.slots)
    if (!has(slot)) return false;
  return !found.slots.empty();
}

at::Tensor DeviceState::norm(const Found& found, int64_t stream, const Scaling& scaling,
                             double max_norm, bool recording) {
  const int64_t places = found.places;
  const auto gradients = gradients_of(found.slots, places);

  // Make room for the sums.
  int64_t pieces = 0;
  for (const cuda::Gradient& g : gradients) pieces += cuda::pieces_of(g.numel);
  const auto [sums, counts] = std::pair(sums_, counts_);
  TORCH_CHECK(
      !recording || (sums.defined() && sums.numel() >= pieces + places && counts.numel() >= places),
      "this step cannot be captured: max_grad_norm was set since the last step; make a "
      "step before");
  make_room(pieces, places);
  const at::Tensor clip = recording ? clip_ : at::empty({2}, on(device_, at::kDouble));
  captured_ |= recording;

  cuda::Norm norm{};
  norm.scaler = scaling.on(device_);
  norm.max_norm = max_norm;
  norm.pieces = sums_.mutable_data_ptr<double>();
  norm.sums = norm.pieces + pieces;
  norm.counts = unsigned_of(counts_);
  norm.total = places;
  norm.clip = clip_of(clip);
  norm.ticket = unsigned_of(ticket_);

  // Launch once, or, with tables in the kernel's argument, as often as it takes.
  const size_t each = fit(room_, cuda::Gradients::size(0), cuda::Gradients::size(1));
  const bool inlined = recording || gradients.size() <= each;
  for (size_t begin = 0; begin < gradients.size();) {
    const size_t rest = gradients.size() - begin, count = inlined ? std::min(each, rest) : rest;
    auto [bytes, table, items, only] = pack(gradients.data() + begin, count);
    table.bytes = inlined ? bytes.data() : gradients_.put(bytes, device_);
    norm.begin = static_cast<int64_t>(begin);
    begin += count;
    const cuda::Place place = cuda::place_of(inlined, bytes.size());
    const char* error = cuda::launch_norm(
        {device_.index(), reinterpret_cast<void*>(stream), place, items}, table, norm);
    TORCH_CHECK(error == nullptr, "the norm could not be launched: ", error);
  }
  return clip;
}

void DeviceState::update(const Found& found, int64_t stream, const Scaling& scaling,
                         const at::Tensor& clip, bool advances, bool always, bool finite,
                         bool recording) {
  const std::vector<Group>& groups = found.groups;
  TORCH_CHECK_VALUE(momentum_cells_.size() == groups.size(), "the schedule on ", device_, " is of ",
                    momentum_cells_.size(), " groups, not ", groups.size());
  std::vector<cuda::Row> rows;
  rows.reserve(groups.size());
  for (const auto g : c10::irange(groups.size()))
    rows.push_back(row_of(groups[g], momentum_cells_[g]));

  // The slots on this device.
  std::vector<const Slot*> slots;
  slots.reserve(found.slots.size());
  bool masters = false;
  for (const Slot& s : found.slots) {
    if (s.numel == 0 || !has(s)) continue;
    slots.push_back(&s);
    masters |= s.master_form != MasterForm::none;
  }

  // Launch once, or, with tables in the kernel's argument, as often as it takes.
  const size_t most = fit(room_, cuda::Table::size(rows.size(), 0, masters),
                          cuda::Table::size(rows.size(), 1, masters));
  TORCH_CHECK(!recording || most > 0, "this step cannot be captured: it has too many groups, ",
              rows.size());
  const bool inlined = most > 0 && (recording || slots.size() <= most);
  const size_t each = inlined ? most : std::max<size_t>(1, slots.size());
  cuda::Step step{};
  step.scaler = scaling.on(device_);
  step.clip = clip.defined() ? clip_of(clip) : nullptr;
  step.always = always;
  step.finite = finite;
  size_t begin = 0;
  do {
    const size_t count = std::min(each, slots.size() - begin);
    auto [bytes, table, items, only] = pack(rows, slots.data() + begin, count);
    begin += count;
    table.bytes = inlined ? bytes.data() : table_.put(bytes, device_);
    step.use = begin == slots.size();  // the last launch commits
    step.advances = step.use && advances;
    const cuda::Place place = cuda::place_of(inlined, bytes.size());
    launch({0, reinterpret_cast<void*>(stream), place, items}, table, only, step);
  } while (begin < slots.size());
}

void DeviceState::advance(int64_t stream) {
  auto [bytes, table, items, only] = pack({}, nullptr, 0);
  table.bytes = bytes.data();
  cuda::Step step{};
  step.advances = true;
  const cuda::Place place = cuda::place_of(true, bytes.size());
  launch({0, reinterpret_cast<void*>(stream), place, items}, table, only, step);
}

void DeviceState::observe(const at::Tensor& metric, int64_t stream) {
  TORCH_CHECK_VALUE(
      metric.device() == device_ && metric.scalar_type() == at::kDouble && metric.numel() == 1,
      "metric must be one float64 on ", device_);
  const char* error = cuda::launch_observe(device_.index(), reinterpret_cast<void*>(stream),
                                           schedule_, metric.const_data_ptr<double>());
  TORCH_CHECK(error == nullptr, "the metric could not be observed: ", error);
}

}  // namespace lrfused
