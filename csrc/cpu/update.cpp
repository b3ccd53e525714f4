// The update on the CPU: one parallel region over units of all tensors of all groups.
#include "passes.h"
#include "units.h"

namespace lrfused {

void update_cpu(const Slot* slots, int64_t count, const Group* groups, bool use_fma,
                const std::function<void(int64_t)>& soon,
                const std::function<void(int64_t)>& written, const Isa& isa) {
  const auto run = [&](int64_t i, int64_t begin, int64_t end) {
    const Slot& s = slots[i];
    const Group& group = groups[s.group];
    if (s.master_form != MasterForm::none) {
      isa.update_master(s, begin, end, group, use_fma);
    } else {
      const size_t offset = begin * itemsize(s.dtype);
      const auto at = [&](auto* stream) { return stream ? stream + offset : nullptr; };
      isa.update(s.dtype, group, s.mode, use_fma)(
          at(static_cast<char*>(s.param)), at(static_cast<const char*>(s.grad)),
          at(static_cast<char*>(s.buffer)), end - begin, group.hypers);
    }
    if (begin == 0) written(i);
  };
  static thread_local Pace pace;
  for_each_unit(
      count, [&](int64_t i) { return slots[i].numel; }, pace,
      [&](const Unit& u) {
        if (u.last == u.first + 1) return run(u.first, u.begin, u.end);
        for (int64_t i = u.first; i < u.last; ++i) {
          // The hardware prefetcher cannot predict the next small tensor.
          const int64_t next = std::min(i + 3, u.last - 1);
          const Slot& ahead = slots[next];
          soon(next);
          for (int64_t byte = 0; byte < 256; byte += 64) {
            __builtin_prefetch(static_cast<const char*>(ahead.param) + byte, 1);
            __builtin_prefetch(static_cast<const char*>(ahead.grad) + byte, 0);
            __builtin_prefetch(static_cast<const char*>(ahead.buffer) + byte, 1);
          }
          run(i, 0, slots[i].numel);
        }
      });
}

}  // namespace lrfused
