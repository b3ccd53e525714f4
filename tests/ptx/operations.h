// Instructions that use a thread's registers only.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>

namespace lrfused::ptx {

// A register, a constant or an address of any type, in the low bytes.
using Word = uint64_t;

template <class T>
T get(const Word* file, int32_t i) {
  T x;
  memcpy(&x, file + i, sizeof(x));
  return x;
}

// Set a word. A signed number is extended to the whole word, as a register may be wider than a
// load.
template <class T>
void set(Word* file, int32_t i, T x) {
  if constexpr (std::is_signed_v<T> && std::is_integral_v<T>) {
    file[i] = Word(int64_t(x));
  } else {
    file[i] = 0;
    memcpy(file + i, &x, sizeof(x));
  }
}

// Computes words of a file: at[0] is the destination; at[1], at[2], ... are the sources.
using Operation = void (*)(Word* file, const int32_t* at);

// Return an opcode's operation, or null if the opcode is unknown.
Operation find_operation(const std::string& opcode);

}  // namespace lrfused::ptx
