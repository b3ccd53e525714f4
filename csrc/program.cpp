#include "program.h"

#include <c10/util/irange.h>

#include <map>

#include "groups.h"
#include "plateau.h"

namespace lrfused {
namespace {

constexpr int64_t kPlateauState = sizeof(PlateauState) / sizeof(double);

void check(const char* name, const at::Tensor& t, at::ScalarType dtype, int64_t rows,
           int64_t columns) {
  TORCH_CHECK_VALUE(t.device().is_cpu() && t.scalar_type() == dtype && t.is_contiguous(), name,
                    " must be a contiguous ", dtype, " tensor on the CPU");
  TORCH_CHECK_VALUE(t.dim() == (columns ? 2 : 1) && (rows < 0 || t.size(0) == rows) &&
                        (!columns || t.size(1) == columns),
                    name, " has the wrong shape: ", t.sizes());
}

}  // namespace

Program::Program(Moved moved, ProgramTables compiled, Shown shown, int64_t steps)
    : left(steps),
      moved_(std::move(moved)),
      compiled_(std::move(compiled)),
      shown_(std::move(shown)) {
  check("epochs", moved_.epochs, at::kLong, -1, 0);
  groups_ = moved_.epochs.numel();
  check("cells", moved_.cells, at::kDouble, 2 * groups(), 0);
  check("used", moved_.used, at::kDouble, groups(), 0);
  check("history", moved_.history, at::kDouble, -1, 2 + groups());
  check("recorded", moved_.recorded, at::kLong, 1, 0);
  check("segments", compiled_.segments, at::kLong, -1, 6);
  check("constants", compiled_.constants, at::kDouble, compiled_.segments.size(0), 3);
  check("tables", compiled_.tables, at::kDouble, -1, 0);
  check("plateau_cells", compiled_.plateau_cells, at::kLong, -1, 0);
  check("plateaus", compiled_.plateaus, at::kDouble, compiled_.plateau_cells.size(0), 10);
  check("plateau_states", moved_.plateau_states, at::kDouble, compiled_.plateau_cells.size(0), 5);
  check("observed", moved_.observed, at::kLong, 1, 0);

  epochs_ = moved_.epochs.mutable_data_ptr<int64_t>();
  used_ = moved_.used.mutable_data_ptr<double>();
  history_ = moved_.history.mutable_data_ptr<double>();
  recorded_ = moved_.recorded.mutable_data_ptr<int64_t>();
  segments_ = reinterpret_cast<const Segment*>(compiled_.segments.const_data_ptr<int64_t>());
  constants_ = reinterpret_cast<const Constants*>(compiled_.constants.const_data_ptr<double>());
  tables_ = compiled_.tables.const_data_ptr<double>();

  const int64_t cells = moved_.cells.numel();
  const Segment* segment = segments_;
  for (const auto i : c10::irange(compiled_.segments.size(0))) {
    const Segment& s = segment[i];
    TORCH_CHECK_VALUE(s.cell >= 0 && s.cell < cells, "segments[", i, "] moves no cell: ", s.cell);
    TORCH_CHECK_VALUE(s.every >= 1 && s.begin >= 0, "segments[", i,
                      "]: every must be at least 1 and begin at least 0");
    TORCH_CHECK_VALUE(s.table < 0 || s.end <= s.begin ||
                          (s.end - 1 - s.begin) / s.every < compiled_.tables.numel() - s.table,
                      "segments[", i, "] reads past the end of tables");
  }
  const int64_t* cell = compiled_.plateau_cells.const_data_ptr<int64_t>();
  std::map<int64_t, std::vector<int64_t>> plateaus;
  for (const auto i : c10::irange(compiled_.plateau_cells.numel())) {
    TORCH_CHECK_VALUE(cell[i] >= 0 && cell[i] < cells, "plateau_cells[", i,
                      "] is no cell: ", cell[i]);
    plateaus[cell[i] / 2].push_back(i);
  }
  plateaus_of_.assign(plateaus.begin(), plateaus.end());
}

void Program::use() {
  const double* cell = cells();
  for (const auto g : c10::irange(groups_)) used_[g] = cell[2 * g];
}

void Program::advance() {
  double* cell = moved_.cells.mutable_data_ptr<double>();
  for (const auto g : c10::irange(groups_)) ++epochs_[g];
  for (const auto i : c10::irange(compiled_.segments.size(0))) {
    const int64_t c = segments_[i].cell;
    cell[c] = apply(segments_[i], constants_[i], tables_, epochs_[c / 2], cell[c]);
  }
  record(false);
  --left;
}

bool Program::feed(double metric) {
  double* cell = moved_.cells.mutable_data_ptr<double>();
  const int64_t* of = compiled_.plateau_cells.const_data_ptr<int64_t>();
  const auto* plateau =
      reinterpret_cast<const Plateau*>(compiled_.plateaus.const_data_ptr<double>());
  auto* state = reinterpret_cast<PlateauState*>(moved_.plateau_states.mutable_data_ptr<double>());
  bool cut = false;
  for (const auto i : c10::irange(compiled_.plateau_cells.numel())) {
    double& rate = cell[of[i]];
    const double before = rate;
    rate = lrfused::observe(plateau[i], state[i], metric, rate);
    cut |= rate != before && before == before;  // a NaN stays one
  }
  ++*moved_.observed.mutable_data_ptr<int64_t>();
  if (cut) record(true);
  return cut;
}

void Program::show(const py::list& groups) const {
  const auto& [known, rates, momenta, templates, places, kept] = shown_;
  const auto fits = [&](const py::list& list) { return list.size() == size_t(this->groups()); };
  TORCH_CHECK_VALUE(fits(groups) && fits(rates) && (momenta.empty() || fits(momenta)) &&
                        fits(templates) && fits(places),
                    "groups, rates, momenta, templates and places must be lists of one entry for "
                    "each of ",
                    this->groups(), " groups");
  show_rates(groups, rates, cells());
  if (!momenta.empty()) show_momenta(groups, momenta, cells());
  show_places(groups, templates, places, epochs_);
}

void Program::note_plateaus(int64_t metrics) const {
  const double* state = moved_.plateau_states.const_data_ptr<double>();
  for (const auto& [group, plateaus] : plateaus_of_) {
    py::list states(plateaus.size());
    for (const auto i : c10::irange(plateaus.size())) {
      py::list numbers(kPlateauState);
      for (const auto j : c10::irange(kPlateauState))
        numbers[j] = state[kPlateauState * plateaus[i] + j];
      states[i] = std::move(numbers);
    }
    lrfused::note_plateaus(shown_.templates, group, metrics, states);
  }
}

int Program::traverse(visitproc visit, void* arg) const {
  for (const py::list* list : {&shown_.groups, &shown_.rates, &shown_.momenta, &shown_.templates,
                               &shown_.places, &shown_.kept})
    Py_VISIT(list->ptr());
  return 0;
}

void Program::keep() const {
  py::list kept = shown_.kept;
  if (!kept.empty()) return;
  for (const py::list& shown : {shown_.rates, shown_.momenta, shown_.places})
    kept.append(copy(shown));
}

void Program::forget() const {
  if (!shown_.kept.empty()) clear(shown_.kept);
}

bool Program::shows(const py::list& groups) const {
  const auto& [known, rates, momenta, templates, places, kept] = shown_;
  return is_same(groups, known) && have(groups, keys::lr, rates) &&
         have(groups, keys::schedule, places) &&
         (momenta.empty() || have(groups, keys::momentum, momenta, /*none_is_any=*/true));
}

void Program::record(bool cut) {
  const int64_t length = moved_.history.size(0);
  if (length == 0 || groups_ == 0) return;
  double* row = history_ + *recorded_ % length * (2 + groups_);
  row[0] = static_cast<double>(*epochs_);
  row[1] = cut;
  const double* cell = cells();
  for (const auto g : c10::irange(groups_)) row[2 + g] = cell[2 * g];
  ++*recorded_;
}

std::vector<double> Program::current_cells() const {
  const double* cell = cells();
  return {cell, cell + moved_.cells.numel()};
}

}  // namespace lrfused
