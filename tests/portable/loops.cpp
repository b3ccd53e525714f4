// Runs csrc/cpu's loops and csrc's schedules without torch, and prints a digest of every result.
// The lines are the same with every compiler, processor and instruction set. With an argument it
// times the loops.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <string>
#include <vector>

#include "csrc/cpu/parallel.h"
#include "csrc/cpu/passes.h"
#include "csrc/master.h"
#include "csrc/norm.h"
#include "csrc/plateau.h"
#include "csrc/schedule.h"
#include "csrc/slot.h"

namespace lrfused {
int64_t thread_count(int64_t) { return 1; }
void on_each_thread(void (*run)(void*, int64_t), void* context) { run(context, 0); }
}  // namespace lrfused

namespace {

using namespace lrfused;

struct Digest {  // FNV-1a
  uint64_t state = 14695981039346656037u;
  void add(uint64_t bits) {
    for (int i = 0; i < 8; ++i) state = (state ^ ((bits >> (8 * i)) & 0xff)) * 1099511628211u;
  }
  // All NaNs count as one: their signs and payloads depend on the processor.
  void add(double x) { add(x != x ? uint64_t(0x7ff8) << 48 : bit_cast<uint64_t>(x)); }
  void add(float x) { add(double(x)); }
};

struct Random {  // xorshift64*
  uint64_t state;
  uint64_t next() {
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return state * 2685821657736338717u;
  }
  // Return a number whose sums and products are rounded, or a special one.
  double number() {
    const double special[] = {0.0,   -0.0,  INFINITY, -INFINITY, NAN,
                              1e-42, -6e-8, 65504,    3e38,      1e-310};
    const uint64_t bits = next();
    if (bits % 61 == 0) return special[bits / 61 % 10];
    return (double(int64_t(bits)) * 0x1p-63) * std::ldexp(1.0, int(next() % 24) - 18);
  }
};

// A stream of elements that begins `shift` elements behind an aligned address.
struct Stream {
  static constexpr int64_t kBehind = 256;
  static constexpr char kUntouched = 0x5a;
  std::vector<char> bytes;
  DType dtype;
  int64_t numel, shift;

  Stream(DType dtype, int64_t numel, int64_t shift, Random* random)
      : bytes(size_t((numel + shift) * itemsize(dtype) + 64 + kBehind), kUntouched),
        dtype(dtype),
        numel(numel),
        shift(shift) {
    for (int64_t i = 0; random && i < numel; ++i) {
      set(i, random->number());
      // Any bits: NaNs of every sign and payload, subnormal numbers, the largest ones; rarely in
      // some streams, for blocks without any.
      if (random->next() % (shift < 3 ? 97 : 1999) == 0) {
        const uint64_t bits = random->next();
        memcpy(at(i), &bits, size_t(itemsize(dtype)));
      }
    }
  }
  char* at(int64_t i) {
    const uintptr_t first = (reinterpret_cast<uintptr_t>(bytes.data()) + 63) / 64 * 64;
    return reinterpret_cast<char*>(first) + (i + shift) * itemsize(dtype);
  }
  // Return whether nothing was written before the first element or behind the last.
  bool intact() {
    const auto untouched = [](char c) { return c == kUntouched; };
    return std::all_of(bytes.data(), at(0), untouched) &&
           std::all_of(at(numel), at(numel) + kBehind, untouched);
  }
  template <class T>
  void put(int64_t i, T x) {
    memcpy(at(i), &x, sizeof x);
  }
  template <class T>
  T get(int64_t i) {
    T x;
    memcpy(&x, at(i), sizeof x);
    return x;
  }
  void set(int64_t i, double x) {
    if (dtype == DType::float32) put(i, float(x));
    if (dtype == DType::float64) put(i, x);
    if (dtype == DType::bfloat16) put(i, narrow<bfloat16>(float(x)));
    if (dtype == DType::float16) put(i, narrow<float16>(float(x)));
  }
  double value(int64_t i) {
    if (dtype == DType::float32) return get<float>(i);
    if (dtype == DType::float64) return get<double>(i);
    if (dtype == DType::bfloat16) return widen(get<bfloat16>(i));
    return widen(get<float16>(i));
  }
};

// `ties`: powers of two, with which the results are often halfway between two numbers.
template <class M>
Hyper<M> hyper(bool scale, bool decay, double clip, bool ties) {
  if (ties) return {M(scale ? -0.5 : 1), M(decay ? 0.25 : 0), M(0.5), M(1), M(-0.125), M(clip)};
  return {M(scale ? -1.0 / 3 : 1), M(decay ? 0.0123 : 0), M(0.9), M(0.95), M(-0.137), M(clip)};
}

Group group_of(int flags, bool ties) {
  const bool scale = flags & 1, decay = flags & 2, nesterov = flags & 4;
  const double clip = !scale ? 1 : ties ? 0.5 : 0.7;
  return {{hyper<float>(scale, decay, clip, ties), hyper<double>(scale, decay, clip, ties)},
          scale,
          decay,
          true,
          nesterov};
}

const char* kNames[] = {"float32", "float64", "bfloat16", "float16"};
const char* kModes[] = {"still", "first", "next"};
const char* kMasters[] = {"plain", "whole", "remainder"};

void nothing(int64_t) {}

// Update streams of many sizes, and sum their squares; return the digest of the results.
uint64_t digest_of(DType dtype, DType grad_dtype, MasterForm master_form, MomentumMode mode,
                   int flags, bool use_fma, const Isa& isa) {
  Digest digest;
  Random random{uint64_t(1 + flags)};
  for (const int64_t numel : {0,  1,  7,  8,  9,   15,  16,  17,   31,   32,   33,
                              63, 64, 65, 95, 127, 128, 129, 1023, 1024, 1025, 16385}) {
    for (const int64_t shift : {0, 1, 3}) {
      const DType wide = master_form == MasterForm::none ? dtype : DType::float32;
      Stream param(dtype, numel, shift, &random), grad(grad_dtype, numel, 2 * shift, &random);
      Stream buffer(wide, numel, shift, &random), master(DType::float32, numel, shift, nullptr);
      Stream rest(DType::bfloat16, numel, shift, nullptr);  // of int16, of the same size
      for (int64_t i = 0; i < numel; ++i) {
        master.set(i, param.value(i));
        rest.put(i, int16_t(random.next()));
      }
      Slot slot{};
      slot.param = param.at(0);
      slot.grad = grad.at(0);
      slot.buffer = mode == MomentumMode::none ? nullptr : buffer.at(0);
      slot.master = master_form == MasterForm::whole ? master.at(0) : rest.at(0);
      slot.numel = numel;
      slot.dtype = dtype;
      slot.grad_dtype = grad_dtype;
      slot.mode = mode;
      slot.master_form = master_form;
      const Group group = group_of(flags, shift == 1);
      update_cpu(&slot, 1, &group, use_fma, nothing, nothing, isa);
      for (Stream* stream : {&param, &grad, &buffer, &master, &rest})
        if (!stream->intact()) std::exit(2);
      const auto add_sum = [&](double inv_scale) {
        double sum = 0;
        square_sums_cpu(&slot, 1, inv_scale, &sum, isa);
        digest.add(sum);
      };
      add_sum(1);
      for (int64_t i = 0; i < numel; ++i)
        if (!std::isfinite(grad.value(i))) grad.set(i, 0.25);
      for (const double inv_scale : {1.0, 1.0 / 3, double(INFINITY)}) add_sum(inv_scale);
      for (int64_t i = 0; i < numel; ++i) {
        digest.add(param.value(i));
        if (mode != MomentumMode::none) digest.add(buffer.value(i));
        if (master_form == MasterForm::whole) digest.add(master.value(i));
        const bool nan = param.value(i) != param.value(i);
        if (master_form == MasterForm::remainder && !nan)
          digest.add(uint64_t(rest.get<uint16_t>(i)));
      }
    }
  }
  return digest.state;
}

// Print the digest, which is the same whatever the instruction set.
void updates(DType dtype, DType grad_dtype, MasterForm master_form, MomentumMode mode, int flags,
             bool use_fma) {
  const auto digest = [&](const Isa& isa) {
    return digest_of(dtype, grad_dtype, master_form, mode, flags, use_fma, isa);
  };
  const uint64_t expected = digest(baseline::isa);
  std::printf("%s grad %s %s %s flags %d %s: %016llx\n", kNames[int(dtype)],
              kNames[int(grad_dtype)], kMasters[int(master_form)], kModes[int(mode)], flags,
              use_fma ? "fused" : "unfused", static_cast<unsigned long long>(expected));
  const auto isas = all_isas();  // the baseline is the last
  for (size_t i = 0; i + 1 < isas.size(); ++i)
    if (digest(*isas[i]) != expected) {
      std::printf("another digest in instruction set %zu of %zu\n", i, isas.size());
      std::exit(1);
    }
}

void conversions() {
  Digest digest;
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    digest.add(widen(float16{uint16_t(bits)}));
    digest.add(widen(bfloat16{uint16_t(bits)}));
  }
  Random random{7};
  for (int i = 0; i < 1000000; ++i) {
    const float x = bit_cast<float>(uint32_t(random.next() >> 32));
    digest.add(rn<float16>(x));
    digest.add(rn<bfloat16>(x));
  }
  std::printf("conversions: %016llx\n", static_cast<unsigned long long>(digest.state));
}

void schedules() {
  Digest digest;
  Random random{11};
  for (int i = 0; i < 10000; ++i) {
    const double tables[] = {random.number(), random.number(), random.number()};
    const Segment segment{0,
                          int64_t(random.next() % 3),
                          9,
                          1 + int64_t(random.next() % 3),
                          int64_t(random.next() % 2),
                          int64_t(random.next() % 2) - 1};
    const Constants constants{random.number(), random.number(), random.number()};
    Plateau plateau{double(i % 2),     double(i / 2 % 2), 0.3, double(i % 3), 0.01, 2, 1e-9, 1e-12,
                    double(1 + i % 2), double(i / 4 % 2)};
    PlateauState state{plateau.maximize != 0 ? -INFINITY : INFINITY, 0, 0, 0, 0};
    double lr = 0.1;
    for (int64_t epoch = 0; epoch < 3; ++epoch) lr = apply(segment, constants, tables, epoch, lr);
    digest.add(lr);
    for (int step = 0; step < 8; ++step) lr = observe(plateau, state, random.number(), lr);
    digest.add(lr);
    digest.add(state.best);
  }
  std::printf("schedules: %016llx\n", static_cast<unsigned long long>(digest.state));
}

void every_update() {
  for (const bool use_fma : {false, true})
    for (const MomentumMode mode : {MomentumMode::none, MomentumMode::first, MomentumMode::next})
      for (int flags = 0; flags < 8; ++flags) {
        for (int dtype = 0; dtype < 4; ++dtype)
          updates(DType(dtype), DType(dtype), MasterForm::none, mode, flags, use_fma);
        for (const DType dtype : {DType::bfloat16, DType::float16})
          for (const DType grad : {dtype, DType::float32})
            updates(dtype, grad, MasterForm::whole, mode, flags, use_fma);
        updates(DType::bfloat16, DType::bfloat16, MasterForm::remainder, mode, flags, use_fma);
      }
}

// Print nanoseconds an element of a later step with momentum and decay, and of a norm: the best.
void time_one(DType dtype, MasterForm master_form, int64_t numel, int rounds, const Isa& isa) {
  Random random{3};
  const DType wide = master_form == MasterForm::none ? dtype : DType::float32;
  Stream param(dtype, numel, 0, &random), grad(dtype, numel, 0, &random);
  Stream buffer(wide, numel, 0, &random), master(DType::float32, numel, 0, &random);
  for (int64_t i = 0; i < numel; ++i) {  // neither special nor moving far
    param.set(i, 0.5);
    grad.set(i, 1e-3);
    buffer.set(i, 1e-3);
  }
  Slot slot{};
  slot.param = param.at(0);
  slot.grad = grad.at(0);
  slot.buffer = buffer.at(0);
  slot.master = master.at(0);
  slot.numel = numel;
  slot.dtype = slot.grad_dtype = dtype;
  slot.mode = MomentumMode::next;
  slot.master_form = master_form;
  const Group group = group_of(2, false);
  double best = INFINITY, norm = INFINITY, sum = 0;
  for (int round = 0; round < rounds; ++round) {
    const auto begin = std::chrono::steady_clock::now();
    update_cpu(&slot, 1, &group, true, nothing, nothing, isa);
    const auto middle = std::chrono::steady_clock::now();
    square_sums_cpu(&slot, 1, 1.0, &sum, isa);
    const auto end = std::chrono::steady_clock::now();
    using Nanoseconds = std::chrono::duration<double, std::nano>;
    best = std::fmin(best, Nanoseconds(middle - begin).count());
    norm = std::fmin(norm, Nanoseconds(end - middle).count());
  }
  std::printf("%s %s update %.4f norm %.4f\n", kNames[int(dtype)], kMasters[int(master_form)],
              best / numel, norm / numel);
}

void time_all(const Isa& isa) {
  const auto time_each = [&](int64_t numel, int rounds) {
    std::printf("%lld elements\n", static_cast<long long>(numel));
    for (int dtype = 0; dtype < 4; ++dtype)
      time_one(DType(dtype), MasterForm::none, numel, rounds, isa);
    time_one(DType::bfloat16, MasterForm::whole, numel, rounds, isa);
    time_one(DType::float16, MasterForm::whole, numel, rounds, isa);
    time_one(DType::bfloat16, MasterForm::remainder, numel, rounds, isa);
  };
  time_each(16384, 2000);  // in the second cache
  time_each(8 << 20, 20);  // in memory
}

// Each number is taken once, by whichever threads there are, and each thread begins with its own.
void shares() {
  for (const int64_t total : {0, 1, 2, 5, 64, 1000})
    for (const int64_t threads : {1, 2, 3, 64})
      for (const int64_t there : {int64_t(1), threads}) {
        Shares shares(total, threads);
        std::vector<int> taken(size_t(total), 0);
        for (int64_t t = there - 1; t >= 0; --t) {
          int64_t first = -1;
          shares.take(t, [&](int64_t i) {
            if (first < 0) first = i;
            ++taken[size_t(i)];
          });
          const bool own = t == there - 1 && total * t / threads < total * (t + 1) / threads;
          if (own && first != total * t / threads) std::exit(3);
        }
        for (const int times : taken)
          if (times != 1) std::exit(4);
      }
}

}  // namespace

int main(int count, char**) {
  if (count > 1) {
    const auto isas = all_isas();
    for (size_t i = 0; i < isas.size(); ++i) {
      std::printf("instruction set %zu of %zu, the best first\n", i + 1, isas.size());
      time_all(*isas[i]);
    }
    return 0;
  }
  shares();
  conversions();
  schedules();
  every_update();
}
