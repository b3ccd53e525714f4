#include "program.h"

#include <c10/util/irange.h>

namespace lrfused {
namespace {

void check(const char* name, const at::Tensor& t, at::ScalarType dtype, int64_t rows,
           int64_t columns) {
  TORCH_CHECK_VALUE(t.device().is_cpu() && t.scalar_type() == dtype && t.is_contiguous(), name,
                    " must be a contiguous ", dtype, " tensor on the CPU");
  TORCH_CHECK_VALUE(t.dim() == (columns ? 2 : 1) && (rows < 0 || t.size(0) == rows) &&
                        (!columns || t.size(1) == columns),
                    name, " has the wrong shape: ", t.sizes());
}

}  // namespace

Program::Program(at::Tensor rates, at::Tensor epochs, at::Tensor segments, at::Tensor constants,
                 at::Tensor tables, at::Tensor plateau_groups, at::Tensor plateaus,
                 at::Tensor plateau_states)
    : rates_(std::move(rates)),
      epochs_(std::move(epochs)),
      segments_(std::move(segments)),
      constants_(std::move(constants)),
      tables_(std::move(tables)),
      plateau_groups_(std::move(plateau_groups)),
      plateaus_(std::move(plateaus)),
      plateau_states_(std::move(plateau_states)) {
  check("rates", rates_, at::kDouble, -1, 0);
  check("epochs", epochs_, at::kLong, groups(), 0);
  check("segments", segments_, at::kLong, -1, 6);
  check("constants", constants_, at::kDouble, segments_.size(0), 3);
  check("tables", tables_, at::kDouble, -1, 0);
  check("plateau_groups", plateau_groups_, at::kLong, -1, 0);
  check("plateaus", plateaus_, at::kDouble, plateau_groups_.size(0), 8);
  check("plateau_states", plateau_states_, at::kDouble, plateau_groups_.size(0), 3);

  const auto* segment = reinterpret_cast<const Segment*>(segments_.const_data_ptr<int64_t>());
  int64_t previous = 0;
  for (const auto i : c10::irange(segments_.size(0))) {
    const Segment& s = segment[i];
    TORCH_CHECK_VALUE(s.group >= previous && s.group < groups(), "segments[", i,
                      "]: groups must ascend and exist, got ", s.group);
    TORCH_CHECK_VALUE(s.every >= 1 && s.begin >= 0, "segments[", i,
                      "]: every must be at least 1 and begin at least 0");
    TORCH_CHECK_VALUE(s.table < 0 || s.end <= s.begin ||
                          (s.end - 1 - s.begin) / s.every < tables_.numel() - s.table,
                      "segments[", i, "] reads past the end of tables");
    previous = s.group;
  }
  const int64_t* group = plateau_groups_.const_data_ptr<int64_t>();
  for (const auto i : c10::irange(plateau_groups_.numel()))
    TORCH_CHECK_VALUE(group[i] >= 0 && group[i] < groups(), "plateau_groups[", i,
                      "] names no group: ", group[i]);
}

void Program::advance() {
  double* rate = rates_.mutable_data_ptr<double>();
  int64_t* epoch = epochs_.mutable_data_ptr<int64_t>();
  for (const auto g : c10::irange(groups())) ++epoch[g];
  const auto* segment = reinterpret_cast<const Segment*>(segments_.const_data_ptr<int64_t>());
  const auto* constants = reinterpret_cast<const Constants*>(constants_.const_data_ptr<double>());
  const double* tables = tables_.const_data_ptr<double>();
  for (const auto i : c10::irange(segments_.size(0))) {
    const int64_t g = segment[i].group;
    rate[g] = apply(segment[i], constants[i], tables, epoch[g], rate[g]);
  }
}

void Program::observe(double metric) {
  double* rate = rates_.mutable_data_ptr<double>();
  const int64_t* group = plateau_groups_.const_data_ptr<int64_t>();
  const auto* plateau = reinterpret_cast<const Plateau*>(plateaus_.const_data_ptr<double>());
  auto* state = reinterpret_cast<PlateauState*>(plateau_states_.mutable_data_ptr<double>());
  for (const auto i : c10::irange(plateau_groups_.numel()))
    rate[group[i]] = lrfused::observe(plateau[i], state[i], metric, rate[group[i]]);
}

std::vector<double> Program::current_rates() const { return {rates(), rates() + groups()}; }

}  // namespace lrfused
