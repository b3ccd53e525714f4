#include "state.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include <cstring>
#include <limits>

#include "../cuda/norm.h"
#include "pack.h"

namespace lrfused {
namespace {

at::TensorOptions on(c10::Device device, at::ScalarType dtype) {
  return at::TensorOptions().dtype(dtype).device(device);
}

}  // namespace

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

void DeviceState::bind(std::vector<at::Tensor> t, int64_t groups, int64_t length) {
  TORCH_CHECK_VALUE(t.size() == 13, "a schedule on a device needs 13 tensors, got ", t.size());
  for (const at::Tensor& tensor : t)
    TORCH_CHECK_VALUE(tensor.device() == device_ && tensor.is_contiguous(),
                      "a schedule's tensors must be contiguous, on ", device_);
  bound_ = std::move(t);
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
               groups,
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
