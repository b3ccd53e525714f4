// A kernel's statements, decoded: names become indices into a thread's file of words.
#pragma once

#include <array>
#include <map>
#include <string>
#include <vector>

#include "operations.h"
#include "source.h"

namespace lrfused::ptx {

enum class Kind : uint8_t {
  compute,
  branch,
  leave,         // ret
  load,          // ld
  store,         // st
  increment,     // atom.inc
  fence,         // membar.gl: for all threads on the device
  barrier,       // bar.sync, of a block
  vote,          // bar.red.or, a barrier too
  warp_barrier,  // bar.warp.sync
  shuffle,       // shfl.sync
  nothing,       // a prefetch, or a fence for the own block
};

enum class Space : uint8_t { any, global, shared, param };

struct Instruction {
  Kind kind = Kind::nothing;
  Operation compute = nullptr;
  std::array<int32_t, 6> at{};  // the operands' words, the destinations first
  int32_t guard = -1;           // the word of a predicate, or -1
  bool unless = false;
  int32_t target = -1;  // of a branch
  // An access has `count` elements of `size` bytes each, in the words at[0], at[1], ...; its
  // address is the word `address` plus `offset`.
  Space space = Space::any;
  int32_t size = 0, count = 0;
  int32_t address = 0;
  int64_t offset = 0;
  bool is_signed = false;
  bool down = false;  // a shuffle reads from a lane further on; else from a lane by its number
  int32_t line = 0;
  bool has_run = false;  // whether it was reached, even if its guard was false
};

struct Kernel {
  std::string name;
  std::vector<Variable> parameters, shared;
  std::vector<Instruction> code;
  std::map<std::string, int32_t> places;  // of registers, constants, %tid.x, parameters, ...
  std::vector<Word> file;                 // a thread's initial words: the constants
};

Kernel decode(const Source& source);

}  // namespace lrfused::ptx
