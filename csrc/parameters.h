// The groups' lists of parameters as one list, with the optimizer's state.
#pragma once

#include <c10/util/Exception.h>
#include <c10/util/irange.h>

#include <algorithm>
#include <unordered_map>
#include <vector>

#include "groups.h"

namespace lrfused {

// All parameters in order, and each one's entry of the optimizer's state.
class Parameters {
 public:
  Parameters(const py::list& groups, PyObject* state) : state_(state) {
    for (const auto g : c10::irange(groups.size())) {
      PyObject* params = item(groups[g].ptr(), keys::params);
      TORCH_CHECK_TYPE(PyList_Check(params), "param_groups[...]['params'] must be a list");
      first_.push_back(count_);
      lists_.push_back(PySequence_Fast_ITEMS(params));
      count_ += PyList_GET_SIZE(params);
    }
    in_order_ = PyDict_Size(state) == count_;
    if (!in_order_) index();
  }

  // Look up entries in an index. Entries are in the order of the parameters except after a late
  // first gradient.
  void index() {
    in_order_ = false;
    Py_ssize_t position = 0;
    PyObject *key, *value;
    while (PyDict_Next(state_, &position, &key, &value)) entries_.emplace(key, value);
  }

  int64_t size() const { return count_; }

  int32_t group(int64_t i) const {
    return static_cast<int32_t>(std::upper_bound(first_.begin(), first_.end(), i) - first_.begin() -
                                1);
  }
  // One past the last parameter of group g.
  int64_t end(int32_t g) const {
    return g + 1 < static_cast<int32_t>(first_.size()) ? first_[g + 1] : count_;
  }
  PyObject* param(int64_t i, int32_t g) const { return lists_[g][i - first_[g]]; }

  // Find parameter i's entry, or null. Returns false if the entry in its place is another's.
  bool entry(int64_t i, PyObject* param, PyObject*& own) const {
    if (!in_order_) {
      const auto found = entries_.find(param);
      own = found == entries_.end() ? nullptr : found->second;
      return true;
    }
    Py_ssize_t position = i;
    PyObject* key;
    return PyDict_Next(state_, &position, &key, &own) && key == param;
  }

 private:
  PyObject* state_;
  std::vector<int64_t> first_;     // of each group
  std::vector<PyObject**> lists_;  // of each group
  int64_t count_ = 0;
  bool in_order_;
  std::unordered_map<PyObject*, PyObject*> entries_;
};

}  // namespace lrfused
