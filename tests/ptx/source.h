// PTX text, parsed into kernels and statements.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace lrfused::ptx {

// `@!%p1 ld.global.v2.u32 {%r1, %r2}, [%rd1+8];` has the guard %p1, `unless` set, the opcode
// ld.global.v2.u32, and three operands; unpacked is 2, for the two in the first braces.
struct Statement {
  int line;
  std::string guard, opcode;
  bool unless = false;
  std::vector<std::string> operands;
  size_t packed = 0, unpacked = 0;  // operands in braces: in later ones, and in the first
};

struct Label {
  std::string name;
  size_t next;  // the statement after it
};

// A parameter of a kernel, or an array in its shared memory.
struct Variable {
  std::string name;
  size_t size;  // bytes
};

struct Source {
  std::string name;  // demangled, without namespaces and the parameter list
  std::vector<Variable> parameters, shared;
  std::vector<Statement> statements;
  std::vector<Label> labels;
};

std::vector<Source> read(const std::string& text);

}  // namespace lrfused::ptx
