#include "kernel.h"

#include <algorithm>
#include <cctype>

#include "fault.h"

namespace lrfused::ptx {
namespace {

constexpr Word kUnwritten = 0xfff1'fff1'fff1'fff1ull;  // a NaN, of any width

std::vector<std::string> split(const std::string& opcode) {
  std::vector<std::string> parts;
  for (size_t begin = 0; begin <= opcode.size();) {
    const size_t end = std::min(opcode.find('.', begin), opcode.size());
    parts.push_back(opcode.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

bool is_number(const std::string& operand) {
  return isdigit(operand[0]) || (operand[0] == '-' && operand.size() > 1);
}

// Parse 12, -0x1f, 0f3F800000 (the bits of a float) or 0d3FF0000000000000 (of a double).
Word number(const std::string& operand) {
  if (operand.rfind("0f", 0) == 0 || operand.rfind("0d", 0) == 0 || operand.rfind("0F", 0) == 0 ||
      operand.rfind("0D", 0) == 0)
    return std::stoull(operand.substr(2), nullptr, 16);
  return operand[0] == '-' ? Word(std::stoll(operand, nullptr, 0))
                           : Word(std::stoull(operand, nullptr, 0));
}

class Decoder {
 public:
  explicit Decoder(const Source& source) : source_(source) {
    kernel_.name = source.name;
    kernel_.parameters = source.parameters;
    kernel_.shared = source.shared;
    for (const Label& label : source.labels) labels_[label.name] = int32_t(label.next);
  }

  Kernel decode() {
    for (const Statement& s : source_.statements) {
      Instruction i = instruction(s);
      i.line = s.line;
      i.unless = s.unless;
      if (!s.guard.empty()) i.guard = place(s.guard);
      kernel_.code.push_back(i);
    }
    return std::move(kernel_);
  }

 private:
  int32_t place(const std::string& operand) {
    const auto [found, is_new] = kernel_.places.emplace(operand, int32_t(kernel_.file.size()));
    if (is_new) kernel_.file.push_back(is_number(operand) ? number(operand) : kUnwritten);
    return found->second;
  }

  Instruction instruction(const Statement& s) {
    const std::vector<std::string> parts = split(s.opcode);
    const auto has = [&](const char* part) {
      return std::find(parts.begin(), parts.end(), part) != parts.end();
    };
    const auto [first, last] = std::pair(parts.front(), parts.back());
    Instruction i;
    if (first == "ld" || first == "st") return access(s, parts);
    if (first == "bra") {
      const auto found = labels_.find(s.operands.at(0));
      if (found == labels_.end()) throw Fault("no label " + s.operands[0]);
      i.kind = Kind::branch;
      i.target = found->second;
      return i;
    }
    if (s.opcode == "ret") {
      i.kind = Kind::leave;
      return i;
    }
    if (s.opcode == "membar.gl" || s.opcode == "membar.sys") {
      i.kind = Kind::fence;
      return i;
    }
    if (s.opcode == "membar.cta" || first == "prefetch") return i;
    if (s.opcode == "atom.global.inc.u32") {
      i.kind = Kind::increment;
      i.space = Space::global;
      i.size = 4;
      i.count = 1;
      i.at[0] = place(s.operands.at(0));
      i.at[1] = place(s.operands.at(2));
      address(i, s.operands.at(1));
      return i;
    }
    i.compute = find_operation(name(s, first, last));
    const size_t count = s.operands.size();
    if (i.compute) {
      i.kind = Kind::compute;
    } else if (s.opcode == "bar.sync" && count == 1 && s.operands[0] == "0") {
      i.kind = Kind::barrier;
    } else if (s.opcode == "bar.red.or.pred" && count == 3 && s.operands[1] == "0") {
      i.kind = Kind::vote;
    } else if (s.opcode == "bar.warp.sync" && count == 1 && s.operands[0] == "-1") {
      i.kind = Kind::warp_barrier;
    } else if (first == "shfl" && has("sync") && (has("down") || has("idx")) && count == 6) {
      i.kind = Kind::shuffle;
      i.down = has("down");
    } else {
      throw Fault("unknown instruction: " + s.opcode);
    }
    if (count > i.at.size()) throw Fault("too many operands: " + s.opcode);
    for (size_t k = 0; k < count; ++k) i.at[k] = place(s.operands[k]);
    return i;
  }

  static std::string name(const Statement& s, const std::string& first, const std::string& last) {
    if (first != "mov" || s.packed + s.unpacked == 0) return s.opcode;
    return (s.packed ? "pack." : "unpack.") + last.substr(1) + "." +
           std::to_string(s.packed + s.unpacked);
  }

  // Parse [%rd1+-8], [name+8] or [%rd1].
  void address(Instruction& i, std::string operand) {
    if (operand.front() != '[' || operand.back() != ']') throw Fault("no address: " + operand);
    operand = operand.substr(1, operand.size() - 2);
    const size_t plus = operand.find('+');
    i.address = place(operand.substr(0, plus));
    if (plus != std::string::npos) i.offset = std::stoll(operand.substr(plus + 1), nullptr, 0);
  }

  Instruction access(const Statement& s, const std::vector<std::string>& parts) {
    Instruction i;
    const bool loads = parts.front() == "ld";
    i.kind = loads ? Kind::load : Kind::store;
    for (size_t k = 1; k + 1 < parts.size(); ++k) {
      if (parts[k] == "global")
        i.space = Space::global;
      else if (parts[k] == "shared")
        i.space = Space::shared;
      else if (parts[k] == "param")
        i.space = Space::param;
      else if (parts[k] != "cg" && parts[k] != "nc" && parts[k] != "v2" && parts[k] != "v4")
        throw Fault("unknown access: " + s.opcode);
    }
    i.is_signed = parts.back()[0] == 's';
    i.size = std::stoi(parts.back().substr(1)) / 8;
    const size_t braced = s.packed + s.unpacked;
    i.count = int32_t(std::max<size_t>(braced, 1));
    if (s.operands.size() != size_t(i.count) + 1) throw Fault("other operands: " + s.opcode);
    address(i, s.operands[loads ? i.count : 0]);
    for (int32_t k = 0; k < i.count; ++k) i.at[k] = place(s.operands[loads ? k : k + 1]);
    return i;
  }

  const Source& source_;
  Kernel kernel_;
  std::map<std::string, int32_t> labels_;
};

}  // namespace

Kernel decode(const Source& source) {
  try {
    return Decoder(source).decode();
  } catch (const Fault& fault) {
    throw Fault(source.name + ": " + fault.what());
  }
}

}  // namespace lrfused::ptx
