#include "source.h"

#include <cxxabi.h>

#include <cstdlib>
#include <map>
#include <regex>
#include <sstream>

#include "fault.h"

namespace lrfused::ptx {
namespace {

std::string trim(const std::string& s) {
  const size_t begin = s.find_first_not_of(" \t\r"), end = s.find_last_not_of(" \t\r");
  return begin == std::string::npos ? "" : s.substr(begin, end - begin + 1);
}

// Shorten lrfused::cuda::(anonymous namespace)::step<lrfused::cuda:: ... to step<Inline<Table>, 0>.
std::string demangle(const std::string& mangled) {
  int status = 0;
  char* text = abi::__cxa_demangle(mangled.c_str(), nullptr, nullptr, &status);
  if (status != 0) throw Fault("no C++ function: " + mangled);
  std::string name = text;
  free(text);
  name = std::regex_replace(name, std::regex(R"(lrfused::|cuda::|\(anonymous namespace\)::)"), "");
  name = std::regex_replace(name, std::regex("^void "), "");
  return name.substr(0, name.find('('));
}

// Parse .param .align 16 .b8 name[32528], or .param .u64 name.
std::vector<Variable> variables(const std::string& text, const std::string& space) {
  static const std::map<std::string, size_t> sizes = {{"8", 1}, {"16", 2}, {"32", 4}, {"64", 8}};
  const std::regex pattern("\\." + space +
                           R"(\s+(?:\.align \d+ )?\.[bsuf](\d+)\s+([\w$]+)(?:\[(\d+)\])?)");
  std::vector<Variable> found;
  for (std::sregex_iterator m(text.begin(), text.end(), pattern), end; m != end; ++m) {
    const size_t count = (*m)[3].matched ? std::stoul((*m)[3]) : 1;
    found.push_back({(*m)[2], sizes.at((*m)[1]) * count});
  }
  return found;
}

class Body {
 public:
  explicit Body(Source& to) : to_(to) {}

  void line(std::string text, int number) {
    text = trim(text.substr(0, text.find("//")));
    if (!text.empty() && text[0] == '{') {
      scopes_.push_back({++scope_count_, {}});
      text = trim(text.substr(1));
    }
    const bool closes = !text.empty() && text.back() == '}';
    if (closes) text = trim(text.substr(0, text.size() - 1));
    if (!text.empty() && text.back() == ':')
      to_.labels.push_back({text.substr(0, text.size() - 1), to_.statements.size()});
    else if (text.rfind(".reg", 0) == 0)
      declare(text);
    else if (!text.empty() && text[0] != '.')
      to_.statements.push_back(statement(text, number));
    if (closes) scopes_.pop_back();
  }

 private:
  struct Scope {
    int number;
    std::vector<std::string> registers;
  };

  // A register declared within braces hides one of the same name outside.
  void declare(const std::string& text) {
    static const std::regex pattern(R"((%?\w+);)");
    std::smatch m;
    if (!scopes_.empty() && std::regex_search(text, m, pattern))
      scopes_.back().registers.push_back(m[1]);
  }

  std::string resolve(const std::string& operand) const {
    for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope)
      for (const std::string& name : scope->registers)
        if (name == operand) return name + "@" + std::to_string(scope->number);
    return operand;
  }

  Statement statement(const std::string& text, int number) const {
    static const std::regex pattern(R"((?:@(!?)(%\w+)\s+)?([\w.:]+)\s*([^;]*);)");
    std::smatch m;
    if (!std::regex_match(text, m, pattern)) throw Fault("no statement of PTX: " + text);
    Statement s{number, resolve(m[2]), m[3], m[1].length() != 0, {}, 0, 0};
    bool braced = false, first = true;
    std::string operand;
    const auto close = [&] {
      if (trim(operand).empty()) return;
      s.operands.push_back(resolve(trim(operand)));
      operand.clear();
      if (braced) ++(first ? s.unpacked : s.packed);
    };
    for (const char c : m[4].str()) {
      if (c == ',' || c == '|') {
        close();
        if (!braced) first = false;
      } else if (c == '{') {
        braced = true;
      } else if (c == '}') {
        close();
        braced = false;
      } else {
        operand += c;
      }
    }
    close();
    return s;
  }

  Source& to_;
  std::vector<Scope> scopes_;
  int scope_count_ = 0;
};

}  // namespace

std::vector<Source> read(const std::string& text) {
  std::vector<Source> sources;
  const std::vector<Variable> shared = variables(text, "shared");
  std::istringstream lines(text);
  std::string line, head;
  enum { outside, in_head, in_body } place = outside;
  for (int number = 1; std::getline(lines, line); ++number) {
    const size_t entry = line.find(".entry ");
    if (place == outside && entry != std::string::npos) {
      head = line.substr(entry + 7);
      sources.push_back({demangle(head.substr(0, head.find('('))), {}, shared, {}, {}});
      place = in_head;
    } else if (place == in_head && line == "{") {
      sources.back().parameters = variables(head, "param");
      Body body(sources.back());
      for (++number; std::getline(lines, line) && line != "}"; ++number) body.line(line, number);
      place = outside;
    } else if (place == in_head) {
      head += line;
    }
  }
  return sources;
}

}  // namespace lrfused::ptx
