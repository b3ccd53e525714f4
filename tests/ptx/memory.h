// The memory that a launch may access. Each access is checked, then made in the host's memory.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernel.h"
#include "order.h"

namespace lrfused::ptx {

struct Region {
  uint64_t begin, end;
  Space space;
  int32_t element;  // bytes of an element, or 0 if the region is read-only
  std::string name;
};

// Return the region of an array. A structure consists of 8-byte numbers.
template <class T>
Region region_of(const T* data, size_t count, const std::string& name, bool written) {
  const uint64_t begin = reinterpret_cast<uint64_t>(data);
  const int32_t element = std::is_class_v<T> ? int32_t(sizeof(double)) : int32_t(sizeof(T));
  return {begin, begin + count * sizeof(T), Space::global, written ? element : 0, name};
}

class Memory {
 public:
  Memory(std::vector<Region> regions, const Order& order);

  // Each throws a Fault if the access is out of bounds or misaligned, or if another thread's access
  // of the same element is neither before nor after it.
  void check_load(int32_t thread, Space space, uint64_t address, int32_t size);
  void check_store(int32_t thread, Space space, uint64_t address, int32_t size);
  void check_atomic(Space space, uint64_t address, int32_t size);

 private:
  // The last accesses of an element. An atomic is ordered with other atomics only.
  struct Element {
    Moment store;
    std::vector<Moment> loads;
    bool atomic = false;
  };
  struct Watched {
    Region region;
    std::vector<Element> elements;
  };

  Watched& find(Space space, uint64_t address, int32_t size);
  template <class F>
  void each(Space space, uint64_t address, int32_t size, const F& check);

  std::vector<Watched> regions_;  // by address
  const Order& order_;
};

}  // namespace lrfused::ptx
