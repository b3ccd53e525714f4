#include <limits>

#include "cases.h"
#include "csrc/gpu/pack.h"
#include "csrc/norm.h"
#include "program.h"
#include "tensor.h"

namespace lrfused::ptx {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr int64_t kMost = 50;  // tensors

int any_kind(Random& random) {
  static_assert(cuda::kKinds[0] == cuda::kMixed);
  return cuda::kKinds[1 + random.below(std::size(cuda::kKinds) - 1)];
}

cuda::Row any_row(int32_t group, Random& random) {
  cuda::Row row{};
  row.weight_decay = random.one_in(4) ? 0 : random.between(0, 0.1);
  row.momentum = random.one_in(3) ? 0 : random.between(0.1, 1);
  row.one_minus_dampening = random.one_in(2) ? 1 : random.between(0, 1);
  row.momentum_cell = row.momentum != 0 && random.one_in(4) ? 2 * group + 1 : -1;
  row.maximize = uint8_t(random.below(2));
  row.nesterov = uint8_t(random.below(2));
  return row;
}

float any_found(Random& random) {
  constexpr float found[] = {0, 0, 0, 0, 1, 2, std::numeric_limits<float>::quiet_NaN()};
  return found[random.below(std::size(found))];
}

}  // namespace

void step_case(Kernel& kernel, const std::string& where, int only, Random& random) {
  const cuda::Place place = place_of(where);
  // With more groups than threads, a thread commits several.
  constexpr int64_t many = cuda::kThreads + 40;
  const bool fits = cuda::Table::size(many, kMost, true) <= room_of(place);
  const int64_t groups = random.one_in(16) && fits ? many : 1 + random.below(3);
  Program program(groups, random);
  std::vector<cuda::Row> rows;
  for (int32_t g = 0; g < groups; ++g) rows.push_back(any_row(g, random));
  std::vector<Tensor> tensors;
  // Often enough for several blocks, as each warp takes an item.
  for (int64_t i = random.below(only == cuda::kMixed ? kMost
                                : random.one_in(2)   ? kMost / 2
                                                     : 7);
       i > 0; --i) {
    const int kind = only == cuda::kMixed ? any_kind(random) : only;
    const int32_t group = int32_t(random.below(groups));
    tensors.push_back(any_tensor(kind, group, rows[group].momentum != 0, random));
  }

  uint32_t ticket = 0;
  for (int launches = 0; launches < 3; ++launches) {
    const float grad_scale = float(random.between(1, 9)), found_inf = any_found(random);
    constexpr double infinity = std::numeric_limits<double>::infinity();
    const double finite = random.between(0, 10);
    const double norm = random.one_in(8) ? kNan : random.one_in(8) ? infinity : finite;
    const cuda::Clip clip{norm, clip_coefficient(norm, 1)};
    cuda::Step step{};
    step.scaler.inv_scale = random.between(0.5, 2);
    if (random.one_in(2)) step.scaler.grad_scale = &grad_scale;
    if (random.one_in(2)) step.scaler.found_inf = &found_inf;
    if (random.one_in(2)) step.clip = &clip;
    step.ticket = &ticket;
    step.use = !random.one_in(4);
    step.advances = step.use && !random.one_in(4);
    step.always = random.one_in(2);
    step.finite = random.one_in(2);

    std::vector<Slot> slots;
    std::vector<const Slot*> pointers;
    for (Tensor& t : tensors) slots.push_back(slot_of(t, int64_t(slots.size())));
    for (const Slot& s : slots) pointers.push_back(&s);
    auto [bytes, table, items, kind] = pack(rows, pointers.data(), pointers.size());
    table.bytes = bytes.data();

    std::vector<Tensor> expected_tensors = tensors;
    Program expected = program;
    const cuda::Schedule moved = expected.schedule();
    for (Tensor& t : expected_tensors) {
      const cuda::Row& row = rows[t.group];
      const double momentum = row.momentum_cell < 0 ? row.momentum : moved.cells[row.momentum_cell];
      if (!step.skipped())
        Update{row, momentum, moved.cells[2 * t.group], step.scaler.scale(), step.coefficient()}(t);
    }
    cuda::commit(moved, step.use, step.moves(step.skipped()), 0, 1);

    std::vector<Region> regions{region_of(&grad_scale, 1, "grad_scale", false),
                                region_of(&found_inf, 1, "found_inf", false),
                                region_of(&clip, 1, "clip", false),
                                region_of(&ticket, 1, "ticket", true),
                                region_of(bytes.data(), bytes.size(), "table", false)};
    program.add_regions(regions);
    step.schedule = program.schedule();
    for (size_t i = 0; i < tensors.size(); ++i) add_regions(tensors[i], i, regions);
    with_argument(place, table, [&](const auto& argument) {
      launch(kernel, grid_of(items, random), cuda::kThreads,
             {{&argument, sizeof(argument)}, {&step, sizeof(step)}, {&items, sizeof(items)}},
             regions, random);
    });

    for (size_t i = 0; i < tensors.size(); ++i) check_equal(tensors[i], expected_tensors[i], i);
    program.check_equal(expected);
    if (ticket != 0) throw Fault("differs: the ticket is left at " + std::to_string(ticket));
  }
}

}  // namespace lrfused::ptx
