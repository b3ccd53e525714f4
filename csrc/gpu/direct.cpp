#include "direct.h"

namespace lrfused {
namespace {

class C10_HIDDEN OnGpu : public Maker {
 public:
  OnGpu(MasterForm master_form, py::object device, py::object images, py::object ready)
      : master_form_(master_form),
        objects_{std::move(device), std::move(images)},
        device_(objects_[0].cast<DeviceState&>()),
        images_(objects_[1].cast<Images&>()),
        ready_(std::move(ready)) {}

  bool step(const py::list& groups, const py::dict& state, Program& program,
            bool advance) override {
    const auto stream = stream_now();
    if (!stream) return false;
    bool odd = false;
    const bool made = step_at_once(groups, state, program, device_, images_, master_form_, {}, {},
                                   {}, *stream, advance, /*settled=*/true, &odd)
                          .first;
    if (odd) rest = kRest;
    return made;
  }

  bool step_schedule(Program& program) override {
    const auto stream = stream_now();
    if (!stream || !images_.unchanged()) return false;
    device_.advance(*stream);
    program.advance();
    images_.note_moved();
    return true;
  }

  int traverse(visitproc visit, void* arg) const override {
    for (const py::object* object : {&objects_[0], &objects_[1], &ready_}) Py_VISIT(object->ptr());
    return 0;
  }

 private:
  std::optional<int64_t> stream_now() const {
    const auto stream = py::reinterpret_steal<py::object>(PyObject_CallNoArgs(ready_.ptr()));
    if (!stream) throw py::error_already_set();
    if (stream.is_none()) return std::nullopt;
    return stream.cast<int64_t>();
  }

  const MasterForm master_form_;
  const py::object objects_[2];  // of Python, that have the two
  DeviceState& device_;
  Images& images_;
  const py::object ready_;
};

}  // namespace

std::unique_ptr<Maker> direct_on_gpu(MasterForm master_form, py::object device, py::object images,
                                     py::object ready) {
  return std::make_unique<OnGpu>(master_form, std::move(device), std::move(images),
                                 std::move(ready));
}

}  // namespace lrfused
