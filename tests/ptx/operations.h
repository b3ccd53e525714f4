// What an instruction computes of a thread's registers alone.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>

namespace lrfused::ptx {

// A register, a constant or an address, whatever its type: the low bytes hold it.
using Word = uint64_t;

template <class T>
T get(const Word* file, int32_t i) {
  T x;
  memcpy(&x, file + i, sizeof(x));
  return x;
}

// A signed number fills the whole word, since a load may be into a wider register.
template <class T>
void set(Word* file, int32_t i, T x) {
  if constexpr (std::is_signed_v<T> && std::is_integral_v<T>) {
    file[i] = Word(int64_t(x));
  } else {
    file[i] = 0;
    memcpy(file + i, &x, sizeof(x));
  }
}

// Reads and writes words of a file, at[0] the destination and at[1] ... the sources.
using Operation = void (*)(Word* file, const int32_t* at);

// Returns null where the opcode is not known.
Operation find_operation(const std::string& opcode);

}  // namespace lrfused::ptx
