#include "images.h"

#include <c10/util/irange.h>

#include <cstring>

namespace lrfused {
namespace {

const char* bytes_of(const at::Tensor& t) { return static_cast<const char*>(t.const_data_ptr()); }

}  // namespace

void Images::watch(std::vector<at::Tensor> tensors, bool anew) {
  for (const at::Tensor& t : tensors)
    TORCH_CHECK_VALUE(t.device().is_cpu() && t.is_contiguous(),
                      "images are of contiguous tensors on the CPU");
  tensors_ = std::move(tensors);
  if (anew) known_.clear();
  known_.resize(tensors_.size());
}

bool Images::has(size_t i) const {
  const auto& known = known_[i];
  return known && known->size() == tensors_[i].nbytes() &&
         (known->empty() || memcmp(known->data(), bytes_of(tensors_[i]), known->size()) == 0);
}

bool Images::unchanged() const {
  for (const auto i : c10::irange(tensors_.size()))
    if (!has(i)) return false;
  return true;
}

std::vector<int64_t> Images::changed() const {
  std::vector<int64_t> indices;
  for (const auto i : c10::irange(tensors_.size()))
    if (!has(i)) indices.push_back(static_cast<int64_t>(i));
  return indices;
}

void Images::note(int64_t i) {
  const char* bytes = bytes_of(tensors_.at(i));
  auto& known = known_[i];
  if (!known) known.emplace();
  known->assign(bytes, bytes + tensors_[i].nbytes());
}

void Images::note_moved() {
  for (const auto i : c10::irange(tensors_.size()))
    if (known_[i]) note(static_cast<int64_t>(i));
}

}  // namespace lrfused
