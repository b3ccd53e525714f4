// Compiled with -frounding-math: some operations change the direction of rounding.
#include "operations.h"

#include <algorithm>
#include <cfenv>
#include <cmath>
#include <limits>
#include <unordered_map>
#include <utility>

namespace lrfused::ptx {
namespace {

using Table = std::unordered_map<std::string, Operation>;

// Read the sources as From, compute f, and write the result as To.
template <class To, class... From, class F>
Operation of(F) {
  return [](Word* file, const int32_t* at) {
    [&]<size_t... i>(std::index_sequence<i...>) {
      set<To>(file, at[0], To(F{}(get<From>(file, at[i + 1])...)));
    }(std::index_sequence_for<From...>());
  };
}

template <class T>
std::string bits() {
  return std::to_string(8 * sizeof(T));
}

template <class T>
std::string name() {
  return (std::is_floating_point_v<T> ? "f" : std::is_signed_v<T> ? "s" : "u") + bits<T>();
}

void add_copies(Table& t) {
  const Operation copy = of<Word, Word>([](Word a) { return a; });
  for (const char* type :
       {"b16", "b32", "b64", "u16", "u32", "u64", "s16", "s32", "s64", "f32", "f64"})
    t[std::string("mov.") + type] = copy;
  t["cvta.to.global.u64"] = t["cvta.to.shared.u64"] = t["cvta.global.u64"] = copy;
  t["cvta.shared.u64"] = t["cvta.param.u64"] = t["cvta.to.param.u64"] = copy;
}

void add_predicates(Table& t) {
  t["mov.pred"] = of<bool, Word>([](Word a) { return a != 0; });  // true may be written as -1
  t["and.pred"] = of<bool, bool, bool>([](bool a, bool b) { return a && b; });
  t["or.pred"] = of<bool, bool, bool>([](bool a, bool b) { return a || b; });
  t["xor.pred"] = of<bool, bool, bool>([](bool a, bool b) { return a != b; });
  t["not.pred"] = of<bool, bool>([](bool a) { return !a; });
}

// Operations that are the same for signed numbers, unsigned numbers and plain bits of U's size.
template <class U>
void add_bits(Table& t) {
  const std::string b = "b" + bits<U>();
  t["and." + b] = of<U, U, U>([](U a, U b) { return a & b; });
  t["or." + b] = of<U, U, U>([](U a, U b) { return a | b; });
  t["xor." + b] = of<U, U, U>([](U a, U b) { return a ^ b; });
  t["not." + b] = of<U, U>([](U a) { return ~a; });
  t["shl." + b] =
      of<U, U, uint32_t>([](U a, uint32_t n) { return n < 8 * sizeof(U) ? U(a << n) : U(0); });
  for (const char* sign : {"s", "u", "b", "f"})
    t["selp." + (sign + bits<U>())] = of<U, U, U, bool>([](U a, U b, bool p) { return p ? a : b; });
  for (const char* sign : {"s", "u"}) {
    const std::string type = sign + bits<U>();
    t["add." + type] = of<U, U, U>([](U a, U b) { return a + b; });
    t["sub." + type] = of<U, U, U>([](U a, U b) { return a - b; });
    t["neg." + type] = of<U, U>([](U a) { return U(0) - a; });
    t["mul.lo." + type] = of<U, U, U>([](U a, U b) { return uint64_t(a) * b; });
    t["mad.lo." + type] = of<U, U, U, U>([](U a, U b, U c) { return uint64_t(a) * b + c; });
  }
}

template <class T>
void add_comparisons(Table& t, const std::string& type) {
  t["setp.eq." + type] = of<bool, T, T>([](T a, T b) { return a == b; });
  t["setp.ne." + type] = of<bool, T, T>([](T a, T b) { return a < b || a > b; });
  t["setp.lt." + type] = of<bool, T, T>([](T a, T b) { return a < b; });
  t["setp.le." + type] = of<bool, T, T>([](T a, T b) { return a <= b; });
  t["setp.gt." + type] = of<bool, T, T>([](T a, T b) { return a > b; });
  t["setp.ge." + type] = of<bool, T, T>([](T a, T b) { return a >= b; });
}

template <class T>
void add_integers(Table& t) {
  const std::string n = name<T>();
  add_comparisons<T>(t, n);
  t["shr." + n] = of<T, T, uint32_t>([](T a, uint32_t by) {
    return T(a >> std::min<uint32_t>(by, 8 * sizeof(T) - 1) >> (by >= 8 * sizeof(T)));
  });
  t["min." + n] = of<T, T, T>([](T a, T b) { return std::min(a, b); });
  t["max." + n] = of<T, T, T>([](T a, T b) { return std::max(a, b); });
  t["div." + n] = of<T, T, T>([](T a, T b) { return a / b; });
  t["rem." + n] = of<T, T, T>([](T a, T b) { return a % b; });
}

template <class T, class Wide>
void add_wide_product(Table& t) {
  t["mul.wide." + name<T>()] = of<Wide, T, T>([](T a, T b) { return Wide(a) * Wide(b); });
}

// Compute f in a rounding direction. Volatile keeps the computation after the change of direction.
template <int direction, class T, class... More, class F>
Operation rounded(F) {
  return of<T, T, More...>([](T a, More... more) {
    const int before = fegetround();
    fesetround(direction);
    const volatile T first = a;
    const volatile T result = F{}(first, more...);
    fesetround(before);
    return T(result);
  });
}

template <class T, int direction>
void add_rounded(Table& t, const std::string& mode) {
  const std::string n = mode + name<T>();
  t["add." + n] = rounded<direction, T, T>([](T a, T b) { return a + b; });
  t["sub." + n] = rounded<direction, T, T>([](T a, T b) { return a - b; });
  t["mul." + n] = rounded<direction, T, T>([](T a, T b) { return a * b; });
  t["div." + n] = rounded<direction, T, T>([](T a, T b) { return a / b; });
  t["fma." + n] = rounded<direction, T, T, T>([](T a, T b, T c) { return std::fma(a, b, c); });
  t["sqrt." + n] = rounded<direction, T>([](T a) { return std::sqrt(a); });
  t["rcp." + n] = rounded<direction, T>([](T a) { return T(1) / a; });
}

template <class T>
void add_floats(Table& t) {
  const std::string n = name<T>();
  add_rounded<T, FE_TONEAREST>(t, "rn.");
  add_rounded<T, FE_TOWARDZERO>(t, "rz.");
  add_comparisons<T>(t, n);
  // An unordered comparison, with u, is true if a number is a NaN.
  t["setp.equ." + n] = of<bool, T, T>([](T a, T b) { return !(a < b || a > b); });
  t["setp.neu." + n] = of<bool, T, T>([](T a, T b) { return !(a == b); });
  t["setp.ltu." + n] = of<bool, T, T>([](T a, T b) { return !(a >= b); });
  t["setp.leu." + n] = of<bool, T, T>([](T a, T b) { return !(a > b); });
  t["setp.gtu." + n] = of<bool, T, T>([](T a, T b) { return !(a <= b); });
  t["setp.geu." + n] = of<bool, T, T>([](T a, T b) { return !(a < b); });
  t["setp.num." + n] = of<bool, T, T>([](T a, T b) { return a == a && b == b; });
  t["setp.nan." + n] = of<bool, T, T>([](T a, T b) { return a != a || b != b; });
  t["neg." + n] = of<T, T>([](T a) { return -a; });
}

template <class To, class... From>
void add_integer_conversions(Table& t) {
  ((t["cvt." + name<To>() + "." + name<From>()] = of<To, From>([](From a) { return To(a); })), ...);
}

template <class... T>
void add_all_integer_conversions(Table& t) {
  (add_integer_conversions<T, uint8_t, int8_t, uint16_t, int16_t, uint32_t, int32_t, uint64_t,
                           int64_t>(t),
   ...);
}

template <class From>
void add_conversions_to_floats(Table& t) {
  t["cvt.rn.f64." + name<From>()] = of<double, From>([](From a) { return double(a); });
  t["cvt.rn.f32." + name<From>()] = of<float, From>([](From a) { return float(a); });
}

// Round to nearest, ties to even, or towards zero if Cut; a NaN becomes the canonical one.
template <bool Cut>
uint16_t bfloat16_of(float x) {
  if (x != x) return 0x7fff;
  uint32_t b;
  memcpy(&b, &x, sizeof(b));
  return uint16_t((Cut ? b : b + 0x7fff + (b >> 16 & 1)) >> 16);
}

// Round to float16 likewise, in units of the last place: 1,024 for each exponent from 2^-14 up.
template <bool Cut>
uint16_t float16_of(float x) {
  if (x != x) return 0x7fff;
  const uint16_t sign = std::signbit(x) ? 0x8000 : 0;
  const double size = std::abs(double(x));
  if (std::isinf(x)) return uint16_t(sign | 0x7c00);
  if (size >= 65520) return uint16_t(sign | (Cut ? 0x7bff : 0x7c00));
  const int exponent = std::max(std::ilogb(size), -14);
  const double units = std::ldexp(size, 10 - exponent);
  const int n = int(Cut ? std::trunc(units) : std::nearbyint(units));
  return uint16_t(sign | (((exponent + 15) << 10) + n - 1024));
}

float float_of(uint16_t half) {
  const int exponent = half >> 10 & 31, n = half & 1023;
  double size = exponent == 0 ? std::ldexp(n, -24) : std::ldexp(1024 + n, exponent - 25);
  if (exponent == 31) size = n == 0 ? std::numeric_limits<double>::infinity() : std::nan("");
  return float(half & 0x8000 ? -size : size);
}

template <bool Cut>
void add_narrowing(Table& t, const std::string& mode) {
  t["cvt." + mode + ".bf16x2.f32"] = of<uint32_t, float, float>([](float high, float low) {
    return uint32_t(bfloat16_of<Cut>(high)) << 16 | bfloat16_of<Cut>(low);
  });
  t["cvt." + mode + ".f16.f32"] = of<uint16_t, float>([](float a) { return float16_of<Cut>(a); });
}

// Select each of d's four bytes from the eight of b:a, by a digit of the selector.
uint32_t permute(uint32_t a, uint32_t b, uint32_t selector) {
  const uint64_t from = uint64_t(b) << 32 | a;
  uint32_t to = 0;
  for (int i = 0; i < 4; ++i) {
    const uint32_t digit = selector >> (4 * i) & 15;
    const uint8_t byte = uint8_t(from >> (8 * (digit & 7)));
    const uint8_t sign = byte & 0x80 ? 0xff : 0;
    to |= uint32_t(digit & 8 ? sign : byte) << (8 * i);
  }
  return to;
}

// Insert the low `length` bits of a into b at `position`.
uint32_t insert(uint32_t a, uint32_t b, uint32_t position, uint32_t length) {
  const uint32_t mask = uint32_t((uint64_t(1) << std::min(length, 32u)) - 1) << position;
  return (b & ~mask) | (a << position & mask);
}

// Move registers of Part into one of Whole, the first lowest, or back: mov with braces.
template <class Whole, class Part>
void add_vector(Table& t) {
  constexpr int count = int(sizeof(Whole) / sizeof(Part));
  const std::string name = bits<Whole>() + "." + std::to_string(count);
  t["pack." + name] = [](Word* file, const int32_t* at) {
    Whole whole = 0;
    for (int i = 0; i < count; ++i)
      whole |= Whole(get<Part>(file, at[1 + i])) << (8 * sizeof(Part) * i);
    set<Whole>(file, at[0], whole);
  };
  t["unpack." + name] = [](Word* file, const int32_t* at) {
    const Whole whole = get<Whole>(file, at[count]);
    for (int i = 0; i < count; ++i) set<Part>(file, at[i], Part(whole >> (8 * sizeof(Part) * i)));
  };
}

Table make() {
  Table t;
  add_copies(t);
  add_predicates(t);
  add_bits<uint16_t>(t);
  add_bits<uint32_t>(t);
  add_bits<uint64_t>(t);
  add_integers<uint16_t>(t);
  add_integers<int16_t>(t);
  add_integers<uint32_t>(t);
  add_integers<int32_t>(t);
  add_integers<uint64_t>(t);
  add_integers<int64_t>(t);
  add_comparisons<uint16_t>(t, "b16");
  add_comparisons<uint32_t>(t, "b32");
  add_comparisons<uint64_t>(t, "b64");
  add_wide_product<uint16_t, uint32_t>(t);
  add_wide_product<int16_t, int32_t>(t);
  add_wide_product<uint32_t, uint64_t>(t);
  add_wide_product<int32_t, int64_t>(t);
  add_floats<float>(t);
  add_floats<double>(t);
  add_all_integer_conversions<uint8_t, int8_t, uint16_t, int16_t, uint32_t, int32_t, uint64_t,
                              int64_t>(t);
  add_conversions_to_floats<int32_t>(t);
  add_conversions_to_floats<uint32_t>(t);
  add_conversions_to_floats<int64_t>(t);
  add_conversions_to_floats<uint64_t>(t);
  t["cvt.f64.f32"] = of<double, float>([](float a) { return double(a); });
  t["cvt.rn.f32.f64"] = of<float, double>([](double a) { return float(a); });
  t["cvt.f32.f16"] = of<float, uint16_t>([](uint16_t a) { return float_of(a); });
  add_narrowing<false>(t, "rn");
  add_narrowing<true>(t, "rz");
  t["prmt.b32"] = of<uint32_t, uint32_t, uint32_t, uint32_t>(
      [](uint32_t a, uint32_t b, uint32_t selector) { return permute(a, b, selector); });
  t["bfi.b32"] = of<uint32_t, uint32_t, uint32_t, uint32_t, uint32_t>(
      [](uint32_t a, uint32_t b, uint32_t position, uint32_t length) {
        return insert(a, b, position, length);
      });
  add_vector<uint32_t, uint16_t>(t);
  add_vector<uint64_t, uint32_t>(t);
  add_vector<uint64_t, uint16_t>(t);
  return t;
}

}  // namespace

Operation find_operation(const std::string& opcode) {
  static const Table table = make();
  const auto found = table.find(opcode);
  return found == table.end() ? nullptr : found->second;
}

}  // namespace lrfused::ptx
