// The Python bindings: the step, the program, the gather, and functions for tests.
#include <ATen/record_function.h>
#include <pybind11/stl.h>
#include <torch/csrc/utils/pybind.h>

#include "cpu/direct.h"
#include "cpu/step.h"
#include "cpu/units.h"
#include "cuda/items.h"
#include "gathered.h"
#include "gpu/direct.h"
#include "gpu/step.h"
#include "images.h"
#include "program.h"
#include "zero_grad.h"
#ifndef LRFUSED_CUDA
#include "cuda/emulated.h"
#endif

namespace lrfused {
namespace {

// For tests: cut tensors of these sizes into units; return them as (first, last, begin, end).
std::vector<std::array<int64_t, 4>> units_of(const std::vector<int64_t>& numels) {
  std::vector<Unit> units;
  cut(static_cast<int64_t>(numels.size()), [&](int64_t i) { return numels[i]; }, units);
  std::vector<std::array<int64_t, 4>> rows;
  for (const Unit& u : units) rows.push_back({u.first, u.last, u.begin, u.end});
  return rows;
}

// For tests: return a row (item, lane, element) for each access of a tensor's element, and a row
// (item, lane, first element) for each vector. `at` and `sizes` are cuda/items.h's Streams and
// Sizes.
using Touches = std::vector<std::array<int64_t, 3>>;
std::pair<Touches, Touches> touches_of(const std::array<uint64_t, 4>& at, int64_t numel,
                                       const std::array<int64_t, 5>& sizes) {
  const cuda::Layout t = cuda::layout_of({at[0], at[1], at[2], at[3]}, numel,
                                         {sizes[0], sizes[1], sizes[2], sizes[3], sizes[4]});
  Touches elements, vectors;
  for (int64_t k = 0; k < cuda::items_of(t); ++k) {
    const cuda::Item item = cuda::item_of(t, k);
    for (int64_t lane = 0; lane < cuda::kLanes; ++lane) {
      for (const cuda::Singles& range : {item.head, item.tail})
        for (int64_t i = range.begin + lane; i < range.end; i += cuda::kLanes)
          elements.push_back({k, lane, i});
      for (int64_t v = item.first + lane; v < item.last; v += cuda::kLanes) {
        vectors.push_back({k, lane, t.head + v * t.width});
        for (int64_t i = 0; i < t.width; ++i)
          elements.push_back({k, lane, t.head + v * t.width + i});
      }
    }
  }
  return {elements, vectors};
}

#ifdef LRFUSED_CUDA
#define LRFUSED_QUOTED(...) #__VA_ARGS__
#define LRFUSED_TEXT(...) LRFUSED_QUOTED(__VA_ARGS__)

// Return a device's name and its compute capability.
std::tuple<std::string, int, int> describe(int device) {
  cuda::Machine machine;
  const char* error = cuda::describe(device, machine);
  TORCH_CHECK(error == nullptr, "device ", device, " could not be described: ", error);
  return {machine.name, machine.major, machine.minor};
}
#endif

// Let Python's garbage collector see the lists that a Program holds: groups, and in them all that a
// user may have put there. The lists can be cleared, so the Program need not be.
void make_traversable(PyHeapTypeObject* heap) {
  heap->ht_type.tp_flags |= Py_TPFLAGS_HAVE_GC;
  heap->ht_type.tp_traverse = [](PyObject* self, visitproc visit, void* arg) -> int {
    Py_VISIT(Py_TYPE(self));
    const auto found = reinterpret_cast<py::detail::instance*>(self)->get_value_and_holder();
    if (!found.holder_constructed()) return 0;
    return static_cast<const Program*>(found.value_ptr())->traverse(visit, arg);
  };
}

void bind_device(py::module_& m) {
  py::class_<DeviceState>(m, "DeviceState")
      .def(py::init<int64_t, int>(), py::arg("index"), py::arg("driver"))
      .def("bind", &DeviceState::bind, py::arg("tensors"), py::arg("momentum_cells"),
           py::arg("length"))
      .def("reserve", &DeviceState::reserve, py::arg("numels"))
      .def("advance", &DeviceState::advance, py::arg("stream"))
      .def("observe", &DeviceState::observe, py::arg("metric"), py::arg("stream"));
  py::class_<DeviceStep>(m, "DeviceStep")
      .def(py::init<const py::list&, const py::dict&, const std::vector<double>&, MasterForm>(),
           py::arg("groups"), py::arg("state"), py::arg("cells"), py::arg("master_form"))
      .def_property_readonly("valid", &DeviceStep::valid)
      .def_property_readonly("firsts", &DeviceStep::firsts)
      .def_property_readonly("devices", &DeviceStep::devices)
      .def_property_readonly("odd", &DeviceStep::odd)
      .def("scale", &DeviceStep::scale, py::arg("inv_scale"), py::arg("grad_scale"),
           py::arg("found_inf"))
      .def("norm", &DeviceStep::norm, py::arg("device"), py::arg("stream"), py::arg("max_norm"),
           py::arg("recording"))
      .def("create", &DeviceStep::create, py::arg("state"))
      .def("launch", &DeviceStep::launch, py::arg("device"), py::arg("stream"), py::arg("advances"),
           py::arg("always"), py::arg("finite"), py::arg("recording"))
      .def("finish", &DeviceStep::finish, py::arg("state"));
  m.def(
      "step_at_once",
      [](const py::list& groups, const py::dict& state, Program& program, DeviceState& device,
         Images& images, MasterForm master_form, std::optional<at::Tensor> grad_scale,
         std::optional<at::Tensor> found_inf, std::optional<double> max_norm, int64_t stream,
         bool advance, bool settled) {
        return step_at_once(groups, state, program, device, images, master_form, grad_scale,
                            found_inf, max_norm, stream, advance, settled);
      },
      py::arg("groups"), py::arg("state"), py::arg("program"), py::arg("device"), py::arg("images"),
      py::arg("master_form"), py::arg("grad_scale"), py::arg("found_inf"), py::arg("max_norm"),
      py::arg("stream"), py::arg("advance"), py::arg("settled"));
  m.def(
      "direct_on_gpu",
      [](const py::object& program, const py::list& read, bool advance, bool by_hand, bool may_warn,
         const py::dict& torchs, MasterForm master_form, const py::object& device,
         const py::object& images, const py::object& ready) {
        return functions({direct_on_gpu(master_form, device, images, ready), program,
                          program.cast<Program&>(), read, advance, by_hand, may_warn, torchs,
                          std::nullopt});
      },
      py::arg("program"), py::arg("read"), py::arg("advance"), py::arg("by_hand"),
      py::arg("may_warn"), py::arg("torchs"), py::arg("master_form"), py::arg("device"),
      py::arg("images"), py::arg("ready"));
  m.def("on_gpu", &cuda::on_gpu);
  m.def("driver_version", &cuda::driver_version);
  m.def("touches_of", &touches_of, py::arg("addresses"), py::arg("numel"), py::arg("sizes"));
#ifdef LRFUSED_CUDA
  m.def("architectures", [] { return LRFUSED_TEXT(LRFUSED_ARCHITECTURES); });
  m.def("describe", &describe, py::arg("device"));
#else
  py::class_<cuda::Tape>(m, "Tape")
      .def(py::init<>())
      .def("__len__", [](const cuda::Tape& tape) { return tape.kernels.size(); })
      .def("replay", [](const cuda::Tape& tape) {
        for (const auto& kernel : tape.kernels) kernel();
      });
  m.def("record_to", [](cuda::Tape* tape) { cuda::record_to(tape); }, py::arg("tape"));
#endif
}

}  // namespace
}  // namespace lrfused

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  using namespace lrfused;
  py::enum_<MasterForm>(m, "Master")
      .value("none", MasterForm::none)
      .value("whole", MasterForm::whole)
      .value("remainder", MasterForm::remainder);
  py::class_<Program>(m, "Program", py::custom_type_setup(make_traversable))
      .def(py::init([](const std::array<at::Tensor, 7>& moved,
                       const std::array<at::Tensor, 5>& compiled,
                       const std::array<py::list, 6>& shown, int64_t steps) {
             const auto& [cells, epochs, used, history, recorded, plateau_states, observed] = moved;
             const auto& [segments, constants, tables, plateau_cells, plateaus] = compiled;
             const auto& [groups, rates, momenta, templates, places, kept] = shown;
             return Program({cells, epochs, used, history, recorded, plateau_states, observed},
                            {segments, constants, tables, plateau_cells, plateaus},
                            {groups, rates, momenta, templates, places, kept}, steps);
           }),
           py::arg("moved"), py::arg("compiled"), py::arg("shown"), py::arg("steps"))
      .def_readwrite("left", &Program::left)
      .def("use", &Program::use)
      .def(
          "advance",
          [](Program& program, const std::optional<py::list>& groups) {
            program.advance();
            if (groups) program.show(*groups);
          },
          py::arg("groups") = py::none())
      .def("feed", &Program::feed, py::arg("metric"))
      .def("note_plateaus", &Program::note_plateaus, py::arg("metrics"))
      .def("keep", &Program::keep)
      .def("cells", &Program::current_cells)
      .def("show", &Program::show, py::arg("groups"))
      .def("shows", &Program::shows, py::arg("groups"));
  m.def("step", &step, py::arg("groups"), py::arg("state"), py::arg("program"),
        py::arg("inv_scale"), py::arg("max_norm"), py::arg("skip"), py::arg("master_form"),
        py::arg("advance"), py::arg("use_fma"), py::arg("odd"));
  m.def(
      "direct",
      [](const py::object& program, const py::list& read, bool advance, bool by_hand, bool may_warn,
         const py::dict& torchs, std::optional<int64_t> fed_before, MasterForm master_form,
         bool use_fma, std::optional<double> max_norm, const py::object& scaling) {
        return functions({direct_on_cpu(master_form, use_fma, max_norm, scaling), program,
                          program.cast<Program&>(), read, advance, by_hand, may_warn, torchs,
                          fed_before});
      },
      py::arg("program"), py::arg("read"), py::arg("advance"), py::arg("by_hand"),
      py::arg("may_warn"), py::arg("torchs"), py::arg("fed_before"), py::arg("master_form"),
      py::arg("use_fma"), py::arg("max_norm"), py::arg("scaling"));
  m.attr("zero_grad") = zero_grad_function();
  py::class_<Gathered>(m, "Gathered")
      .def_property_readonly("valid", &Gathered::valid)
      .def_property_readonly("firsts", &Gathered::firsts)
      .def_property_readonly("places", &Gathered::places)
      .def_property_readonly("odd", &Gathered::odd)
      .def_property_readonly("params", &Gathered::params)
      .def_property_readonly("slots", &Gathered::slots)
      .def("bump_versions", &Gathered::bump_versions);
  m.def(
      "gather",
      [](const py::list& groups, const py::dict& state, const std::vector<double>& cells,
         MasterForm master_form, const std::string& device_type) {
        return Gathered(groups, state, cells, master_form, c10::Device(device_type).type());
      },
      py::arg("groups"), py::arg("state"), py::arg("cells"), py::arg("master_form"),
      py::arg("device_type"));
  py::class_<Images>(m, "Images")
      .def(py::init<>())
      .def("watch", &Images::watch, py::arg("tensors"), py::arg("anew"))
      .def("unchanged", &Images::unchanged)
      .def("changed", &Images::changed)
      .def("note", &Images::note, py::arg("i"))
      .def("note_moved", &Images::note_moved);
  m.def("has_observers", &at::hasCallbacks);
  m.def("note_fork", &note_fork);
  py::class_<Pace>(m, "Pace")
      .def(py::init<>())
      .def(
          "choose",
          [](Pace& pace, int64_t cost, int64_t threads) {
            const Pace::Run run = pace.choose(cost, threads);
            return std::pair(run.threads, run.retry);
          },
          py::arg("cost"), py::arg("threads"))
      .def(
          "note",
          [](Pace& pace, int64_t cost, std::pair<bool, bool> run, int64_t nanoseconds) {
            pace.note(cost, {run.first, run.second}, nanoseconds);
          },
          py::arg("cost"), py::arg("run"), py::arg("nanoseconds"));
  m.def("units_of", &units_of, py::arg("numels"));
  bind_device(m);
}
