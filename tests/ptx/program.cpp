#include "program.h"

#include <limits>

#include "fault.h"
#include "stream.h"

namespace lrfused::ptx {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr size_t kSpace = 64;  // elements after an array that no access may touch

// Return a small number, or sometimes one larger than an unrolled loop takes at once.
int64_t few(Random& random) { return random.below(random.one_in(4) ? 12 : 3); }

// Return a small count, or one of more than 32 bits, as a division has code for either.
int64_t any_count(Random& random) { return random.below(10) + (random.one_in(4) ? 1ll << 40 : 0); }

template <class T>
void add_region(std::vector<Region>& to, std::vector<T>& array, const char* name, bool written) {
  array.reserve(array.size() + kSpace);
  to.push_back(region_of(array.data(), array.size(), name, written));
}

void check(const double* mine, const double* expected, size_t count, const char* name) {
  for (size_t i = 0; i < count; ++i)
    if (!same(mine[i], expected[i]))
      throw Fault("differs: " + std::string(name) + "[" + std::to_string(i) + "] is " +
                  std::to_string(mine[i]) + ", not " + std::to_string(expected[i]));
}

void check(const std::vector<int64_t>& mine, const std::vector<int64_t>& expected,
           const char* name) {
  if (mine != expected) throw Fault("differs: " + std::string(name));
}

}  // namespace

Program::Program(int64_t groups, Random& random)
    : used_(groups, kNan), recorded_(groups, any_count(random)), observed_(1, random.below(10)) {
  length_ = random.below(5);
  history_.assign(length_ * (2 + groups), kNan);
  tables_ = {kNan};
  for (int64_t g = 0; g < groups; ++g) {
    epochs_.push_back(random.below(5));
    for (int64_t cell = 2 * g; cell < 2 * g + 2; ++cell) {
      cells_.push_back(random.one_in(8) ? 0 : random.between(1e-3, 1));
      first_segments_.push_back(int64_t(segments_.size()));
      first_plateaus_.push_back(int64_t(plateaus_.size()));
      for (int64_t i = few(random); i > 0; --i) add_segment(cell, random);
      for (int64_t i = few(random); i > 0; --i) add_plateau(random);
    }
  }
  first_segments_.push_back(int64_t(segments_.size()));
  first_plateaus_.push_back(int64_t(plateaus_.size()));
}

void Program::add_segment(int64_t cell, Random& random) {
  const int64_t begin = random.below(4), end = begin + random.below(20);
  const int64_t every = random.one_in(4) ? 1ll << 40 : 1 + random.below(3);
  const bool has_table = random.one_in(2);
  segments_.push_back(
      {cell, begin, end, every, random.below(2), has_table ? int64_t(tables_.size()) : -1});
  constants_.push_back({random.between(0.5, 1.5), random.one_in(2) ? 0 : random.between(0, 0.1),
                        random.one_in(2) ? 0 : random.between(0, 0.1)});
  for (int64_t epoch = begin; has_table && epoch < end; epoch += every)
    tables_.push_back(random.between(0, 1.5));
}

void Program::add_plateau(Random& random) {
  Plateau p{};
  p.maximize = double(random.below(2));
  p.absolute = double(random.below(2));
  p.factor = random.between(0.1, 0.9);
  p.patience = double(random.below(2));
  p.threshold = random.one_in(2) ? 0 : 1e-2;
  p.cooldown = double(random.below(2));
  p.min_lr = random.one_in(2) ? 0 : 0.1;
  p.eps = random.one_in(2) ? 0 : 1e-8;
  p.accumulate = double(1 + random.below(2));
  p.ignore_nan = double(random.below(2));
  plateaus_.push_back(p);
  states_.push_back({p.maximize != 0 ? -kInfinity : kInfinity, 0, double(random.below(2)), 0, 0});
}

cuda::Schedule Program::schedule() {
  return {cells_.data(),
          epochs_.data(),
          used_.data(),
          first_segments_.data(),
          segments_.data(),
          constants_.data(),
          tables_.data(),
          history_.data(),
          recorded_.data(),
          observed_.data(),
          first_plateaus_.data(),
          plateaus_.data(),
          states_.data(),
          groups(),
          length_};
}

void Program::add_regions(std::vector<Region>& to) {
  add_region(to, cells_, "cells", true);
  add_region(to, epochs_, "epochs", true);
  add_region(to, used_, "used", true);
  add_region(to, first_segments_, "first_segments", false);
  add_region(to, segments_, "segments", false);
  add_region(to, constants_, "constants", false);
  add_region(to, tables_, "tables", false);
  add_region(to, history_, "history", true);
  add_region(to, recorded_, "recorded", true);
  add_region(to, observed_, "observed", true);
  add_region(to, first_plateaus_, "first_plateaus", false);
  add_region(to, plateaus_, "plateaus", false);
  add_region(to, states_, "plateau_states", true);
}

void Program::check_equal(const Program& expected) const {
  check(cells_.data(), expected.cells_.data(), cells_.size(), "cells");
  check(used_.data(), expected.used_.data(), used_.size(), "used");
  check(history_.data(), expected.history_.data(), history_.size(), "history");
  check(epochs_, expected.epochs_, "epochs");
  check(recorded_, expected.recorded_, "recorded");
  check(observed_, expected.observed_, "observed");
  check(reinterpret_cast<const double*>(states_.data()),
        reinterpret_cast<const double*>(expected.states_.data()),
        states_.size() * sizeof(PlateauState) / sizeof(double), "plateau_states");
}

}  // namespace lrfused::ptx
