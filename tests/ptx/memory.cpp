#include "memory.h"

#include <algorithm>

#include "fault.h"

namespace lrfused::ptx {
namespace {

std::string place(const Region& region, uint64_t address, int32_t size) {
  return std::to_string(size) + " bytes at " + region.name + " + " +
         std::to_string(int64_t(address - region.begin)) + " of " +
         std::to_string(region.end - region.begin);
}

}  // namespace

Memory::Memory(std::vector<Region> regions, const Order& order) : order_(order) {
  std::sort(regions.begin(), regions.end(),
            [](const Region& a, const Region& b) { return a.begin < b.begin; });
  for (Region& r : regions) {
    const size_t count = r.element == 0 ? 0 : size_t(r.end - r.begin) / size_t(r.element);
    regions_.push_back({std::move(r), std::vector<Element>(count)});
  }
}

Memory::Watched& Memory::find(Space space, uint64_t address, int32_t size) {
  const auto next =
      std::upper_bound(regions_.begin(), regions_.end(), address,
                       [](uint64_t at, const Watched& w) { return at < w.region.begin; });
  if (next == regions_.begin()) throw Fault("out of bounds: below all memory");
  Watched& found = *std::prev(next);
  const Region& r = found.region;
  if (address + uint64_t(size) > r.end) throw Fault("out of bounds: " + place(r, address, size));
  if (space != Space::any && space != r.space)
    throw Fault("in another space: " + place(r, address, size));
  if (address % uint64_t(size) != 0) throw Fault("misaligned: " + place(r, address, size));
  return found;
}

template <class F>
void Memory::each(Space space, uint64_t address, int32_t size, const F& check) {
  Watched& w = find(space, address, size);
  if (w.region.element == 0) return;
  const uint64_t element = uint64_t(w.region.element), from = address - w.region.begin;
  for (uint64_t i = from / element; i * element < from + uint64_t(size); ++i)
    if (!check(w.elements[i])) throw Fault("race: " + place(w.region, address, size));
}

void Memory::check_load(int32_t thread, Space space, uint64_t address, int32_t size) {
  each(space, address, size, [&](Element& e) {
    if (e.atomic || (e.store.thread >= 0 && !order_.is_before(e.store, thread))) return false;
    for (Moment& load : e.loads)
      if (load.thread == thread) {
        load = order_.now(thread);
        return true;
      }
    e.loads.push_back(order_.now(thread));
    return true;
  });
}

void Memory::check_store(int32_t thread, Space space, uint64_t address, int32_t size) {
  const Region& r = find(space, address, size).region;
  if (r.element == 0) throw Fault("read-only: " + place(r, address, size));
  each(space, address, size, [&](Element& e) {
    if (e.atomic || (e.store.thread >= 0 && !order_.is_before(e.store, thread))) return false;
    for (const Moment& load : e.loads)
      if (!order_.is_before(load, thread)) return false;
    e.loads.clear();
    e.store = order_.now(thread);
    return true;
  });
}

void Memory::check_atomic(Space space, uint64_t address, int32_t size) {
  const Region& r = find(space, address, size).region;
  if (r.element == 0) throw Fault("read-only: " + place(r, address, size));
  each(space, address, size, [&](Element& e) {
    e.atomic = true;
    return e.store.thread < 0 && e.loads.empty();
  });
}

}  // namespace lrfused::ptx
