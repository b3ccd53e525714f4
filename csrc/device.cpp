#include "device.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <c10/util/irange.h>
#include <torch/csrc/autograd/python_variable.h>
#include <torch/csrc/utils/pybind.h>

#include <algorithm>
#include <cstring>

namespace lrfused {
namespace {

c10::DeviceType device_type() { return cuda::on_gpu() ? c10::kCUDA : c10::kCPU; }

cuda::Row row_of(const Group& group, int32_t momentum_cell) {
  const Hyper<double>& h = group.hypers.twice;
  return {h.weight_decay, h.momentum, h.undamped, momentum_cell, h.grad_scale < 0, group.nesterov};
}

cuda::Entry entry_of(const Slot& s) {
  const auto address = [](const void* p) { return reinterpret_cast<uint64_t>(p); };
  return {address(s.param),
          address(s.grad),
          address(s.buffer),
          static_cast<uint64_t>(s.numel),
          static_cast<uint64_t>(s.group),
          static_cast<uint64_t>(s.mode),
          static_cast<uint64_t>(s.dtype)};
}

// The bytes of a table of these slots, and the launch without them.
struct Packed {
  std::vector<char> bytes;
  cuda::Launch launch{};
};

Packed pack(const std::vector<cuda::Row>& rows, const Slot* const* slots, size_t count) {
  Packed packed;
  packed.bytes.resize(cuda::size_of(rows.size(), count));
  char* at = packed.bytes.data();
  const auto put = [&](const auto& value) {
    memcpy(at, &value, sizeof(value));
    at += sizeof(value);
  };
  for (const cuda::Row& row : rows) put(row);
  std::vector<uint32_t> first{0};
  int only = count ? static_cast<int>(slots[0]->dtype) : cuda::kMixed;
  for (const auto i : c10::irange(count)) {
    const cuda::Entry entry = entry_of(*slots[i]);
    put(entry);
    const cuda::Layout layout = cuda::layout_of(entry.param, entry.grad, entry.buffer, entry.numel,
                                                itemsize(slots[i]->dtype));
    first.push_back(first.back() + static_cast<uint32_t>(cuda::items_of(layout)));
    if (static_cast<int>(slots[i]->dtype) != only) only = cuda::kMixed;
  }
  for (const uint32_t item : first) put(item);
  packed.launch.only = only;
  packed.launch.items = first.back();
  packed.launch.table = {packed.bytes.data(), static_cast<int32_t>(rows.size()),
                         static_cast<int32_t>(count)};
  return packed;
}

const float* one_float(const char* name, const at::Tensor& t, c10::Device device) {
  if (!t.defined()) return nullptr;
  TORCH_CHECK_VALUE(t.scalar_type() == at::kFloat && t.numel() == 1 && t.device() == device, name,
                    " must be one float32 on ", device);
  return t.const_data_ptr<float>();
}

}  // namespace

Device::Device(int64_t index)
    : device_(device_type(), cuda::on_gpu() ? static_cast<c10::DeviceIndex>(index) : -1),
      ticket_(at::zeros({1}, at::TensorOptions().dtype(at::kInt).device(device_))) {}

void Device::bind(std::vector<at::Tensor> t, int64_t groups, int64_t length) {
  TORCH_CHECK_VALUE(t.size() == 13, "a schedule on a device is made of 13 tensors");
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

void Device::launch(cuda::Launch launch, cuda::Step step) {
  launch.device = device_.index();
  step.schedule = schedule_;
  step.ticket = reinterpret_cast<uint32_t*>(ticket_.mutable_data_ptr<int32_t>());
  const char* error = cuda::launch_step(launch, step);
  TORCH_CHECK(error == nullptr, "the step could not be launched: ", error);
}

void Device::advance(int64_t stream) {
  Packed packed = pack({}, nullptr, 0);
  packed.launch.stream = reinterpret_cast<void*>(stream);
  packed.launch.inlined = true;
  cuda::Step step{};
  step.advances = true;
  launch(packed.launch, step);
}

void Device::observe(const at::Tensor& metric, int64_t stream) {
  TORCH_CHECK_VALUE(
      metric.device() == device_ && metric.scalar_type() == at::kDouble && metric.numel() == 1,
      "metric must be one float64 on ", device_);
  const char* error = cuda::launch_observe(device_.index(), reinterpret_cast<void*>(stream),
                                           schedule_, metric.const_data_ptr<double>());
  TORCH_CHECK(error == nullptr, "the metric could not be observed: ", error);
}

cuda::Table Device::upload(const std::vector<char>& bytes) {
  const auto size = static_cast<int64_t>(bytes.size());
  if (bytes != known_) {
    if (!table_.defined() || table_.numel() < size)
      table_ = at::empty({2 * size}, at::TensorOptions().dtype(at::kByte).device(device_));
    // The pinned copy goes back to torch's allocator, which keeps it until the transfer is over.
    const at::Tensor host =
        at::empty({size}, at::TensorOptions().dtype(at::kByte).pinned_memory(cuda::on_gpu()));
    memcpy(host.mutable_data_ptr(), bytes.data(), bytes.size());
    table_.narrow(0, 0, size).copy_(host, /*non_blocking=*/true);
    known_ = bytes;
  }
  return {static_cast<const char*>(table_.const_data_ptr()), 0, 0};
}

DeviceStep::DeviceStep(const py::list& groups, const py::dict& state,
                       const std::vector<double>& cells) {
  TORCH_CHECK_VALUE(cells.size() == 2 * groups.size(), "there are ", cells.size(), " cells for ",
                    groups.size(), " groups");
  found_.aligned = true;
  gather(groups, state, cells.data(), 1.0, device_type(), Master::none, found_);
  for (const Tensors& t : found_.tensors)
    for (c10::TensorImpl* impl : {t.param, t.grad, t.buffer})
      if (impl) held_.push_back(c10::intrusive_ptr<c10::TensorImpl>::reclaim_copy(impl));
}

std::vector<int64_t> DeviceStep::devices() const {
  std::vector<int64_t> indices;
  for (const Slot& s : found_.slots)
    if (std::find(indices.begin(), indices.end(), s.device) == indices.end())
      indices.push_back(s.device);
  return indices;
}

py::list DeviceStep::odd() const {
  py::list list;
  const auto add = [&](int64_t group, PyObject* param) {
    list.append(py::make_tuple(group, py::reinterpret_borrow<py::object>(param)));
  };
  for (const Odd& o : found_.odd) add(o.group, o.param);
  if (!found_.valid)
    for (const auto i : c10::irange(found_.slots.size()))
      add(found_.slots[i].group, found_.tensors[i].object);
  return list;
}

void DeviceStep::create() {
  for (const auto i : c10::irange(found_.slots.size())) {
    if (found_.slots[i].mode != Buffer::first) continue;
    created_.push_back(at::empty_like(THPVariable_Unpack(found_.tensors[i].object).detach()));
    found_.slots[i].buffer = created_.back().mutable_data_ptr();
  }
}

void DeviceStep::launch(Device& device, int64_t stream, const std::vector<int32_t>& momentum_cells,
                        const Scale& scale, bool advances, bool always, bool recording) {
  TORCH_CHECK_VALUE(momentum_cells.size() == found_.groups.size(), "momentum_cells must name ",
                    found_.groups.size(), " cells");
  std::vector<cuda::Row> rows;
  for (const auto g : c10::irange(found_.groups.size()))
    rows.push_back(row_of(found_.groups[g], momentum_cells[g]));
  std::vector<const Slot*> slots;
  for (const Slot& s : found_.slots)
    if (s.numel > 0 && (device.device_.is_cpu() || s.device == device.device_.index()))
      slots.push_back(&s);

  cuda::Step step{};
  step.inv_scale = scale.inv_scale;
  step.grad_scale = one_float("grad_scale", scale.grad_scale, device.device_);
  step.found_inf = one_float("found_inf", scale.found_inf, device.device_);
  step.always = always;

  const size_t room = cuda::kInline - std::min(cuda::kInline, cuda::size_of(rows.size(), 0));
  const size_t fit = room / (cuda::size_of(0, 1) - cuda::size_of(0, 0));
  TORCH_CHECK(!recording || fit > 0, "this step cannot be captured: it has too many groups, ",
              rows.size());
  const bool inlined = recording || slots.size() <= fit;
  const size_t each = inlined && fit > 0 ? fit : std::max<size_t>(1, slots.size());
  size_t begin = 0;
  do {
    const size_t count = std::min(each, slots.size() - begin);
    Packed packed = pack(rows, slots.data() + begin, count);
    begin += count;
    packed.launch.stream = reinterpret_cast<void*>(stream);
    packed.launch.inlined = inlined && fit > 0;
    if (!packed.launch.inlined) packed.launch.table.bytes = device.upload(packed.bytes).bytes;
    step.use = begin == slots.size();  // the last one commits
    step.advances = step.use && advances;
    device.launch(packed.launch, step);
  } while (begin < slots.size());
}

void DeviceStep::finish(const py::dict& state) {
  for (const Tensors& t : found_.tensors) t.param->bump_version();
  auto buffer = created_.begin();
  for (size_t i = 0; buffer != created_.end(); ++i) {
    if (found_.slots[i].mode != Buffer::first) continue;
    const py::object own = state[py::handle(found_.tensors[i].object)];
    if (PyObject_SetItem(own.ptr(), buffer_key(), py::cast(*buffer++).ptr()) < 0)
      throw py::error_already_set();
  }
}

}  // namespace lrfused
