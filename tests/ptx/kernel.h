// A kernel's statements, decoded: names are places in a thread's file of words.
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
  fence,         // membar.gl, which all threads on the device see
  barrier,       // bar.sync, of a block
  vote,          // bar.red.or, a barrier too
  warp_barrier,  // bar.warp.sync
  shuffle,       // shfl.sync
  nothing,       // a prefetch, or a fence that only the own block sees
};

enum class Space : uint8_t { any, global, shared, param };

struct Instruction {
  Kind kind = Kind::nothing;
  Operation compute = nullptr;
  std::array<int32_t, 6> at{};  // the operands' words, the destinations first
  int32_t guard = -1;           // the word of a predicate, or -1
  bool unless = false;
  int32_t target = -1;  // of a branch
  // Of an access: `count` elements of so many bytes, which are at[0] ... , and the address, which
  // is a word plus the offset.
  Space space = Space::any;
  int32_t size = 0, count = 0;
  int32_t address = 0;
  int64_t offset = 0;
  bool is_signed = false;
  bool down = false;  // of a shuffle, which else is from a lane by its number
  int32_t line = 0;
  bool has_run = false;  // or would have, without its guard
};

struct Kernel {
  std::string name;
  std::vector<Variable> parameters, shared;
  std::vector<Instruction> code;
  std::map<std::string, int32_t> places;  // of registers, constants, %tid.x, parameters, ...
  std::vector<Word> file;                 // what a thread begins with: the constants
};

Kernel decode(const Source& source);

}  // namespace lrfused::ptx
