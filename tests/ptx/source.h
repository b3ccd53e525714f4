// PTX text, cut into kernels, and kernels into statements.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace lrfused::ptx {

// `@!%p1 ld.global.v2.u32 {%r1, %r2}, [%rd1+8];` has the guard %p1, unless, the opcode
// ld.global.v2.u32 and three operands, of which the first 2 stood in braces that came first.
struct Statement {
  int line;
  std::string guard, opcode;
  bool unless = false;
  std::vector<std::string> operands;
  size_t packed = 0, unpacked = 0;  // how many operands stood in braces after the first, and in it
};

struct Label {
  std::string name;
  size_t next;  // the statement that it stands before
};

// An array that a kernel is given, or shares within a block.
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
