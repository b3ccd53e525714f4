// main PTX SEED CASES [NAME]: run a file's kernels whose names contain NAME, compare, and print a
// line for each.
#include <fstream>
#include <iostream>
#include <regex>
#include <sstream>

#include "cases.h"

namespace lrfused::ptx {
namespace {

void run_case(Kernel& kernel, Random& random) {
  static const std::regex step("step<(.+), (-?[0-9]+)>"), norm("norm<(.+)>");
  std::smatch m;
  if (std::regex_match(kernel.name, m, step))
    step_case(kernel, m[1], std::stoi(m[2]), random);
  else if (std::regex_match(kernel.name, m, norm))
    norm_case(kernel, m[1], random);
  else if (kernel.name == "observe")
    observe_case(kernel, random);
  else
    throw Fault("no case for this kernel");
}

// Name the instructions that no case reached. Branches do not count: one that was never taken leads
// to unreached instructions, or to reached ones.
std::string unreached(const Kernel& kernel) {
  int count = 0;
  std::string lines;
  for (const Instruction& i : kernel.code) {
    if (i.has_run || i.kind == Kind::branch) continue;
    if (++count <= 20) lines += " " + std::to_string(i.line);
  }
  return std::to_string(count) + " instructions unreached" + (count ? ", first lines" + lines : "");
}

int run(const std::string& path, uint64_t seed, int cases, const std::string& name) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  int faults = 0;
  for (const Source& source : read(text.str())) {
    if (source.name.find(name) == std::string::npos) continue;
    int i = 0;
    try {
      Kernel kernel = decode(source);
      for (; i < cases; ++i) {
        Random random(seed + uint64_t(i));
        run_case(kernel, random);
      }
      std::cout << source.name << ": " << cases << " cases are equal, " << unreached(kernel)
                << std::endl;
    } catch (const Fault& fault) {
      std::cout << source.name << ": seed " << seed + uint64_t(i) << ": " << fault.what()
                << std::endl;
      ++faults;
    }
  }
  return faults != 0;
}

}  // namespace
}  // namespace lrfused::ptx

int main(int count, char** arguments) {
  if (count < 4) return 2;
  return lrfused::ptx::run(arguments[1], std::stoull(arguments[2]), std::stoi(arguments[3]),
                           count > 4 ? arguments[4] : "");
}
