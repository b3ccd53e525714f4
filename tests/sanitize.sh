#!/usr/bin/env bash
# Build the C++ with ASan and UBSan in a folder of its own and run tests that reach all of it.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=$(realpath -s "${PYTHON:-python3}")
root=build/sanitize
mkdir -p "$root"
cp -r csrc lrfused tests setup.py pyproject.toml README.md LICENSE "$root"
cd "$root"
rm -f lrfused/_C*.so
LRFUSED_SANITIZE=1 LRFUSED_REQUIRE_EXTENSION=1 "$PYTHON" setup.py --quiet build_ext --inplace

# Python is not instrumented: its runtime must be there first, and its own leaks are not ours.
LD_PRELOAD="$(c++ -print-file-name=libasan.so) $(c++ -print-file-name=libubsan.so)" \
ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
PYTHONPATH=$PWD "$PYTHON" -m pytest -p no:cacheprovider -k "not subprocess" \
  "${@:-tests/test_engine.py}" tests/test_cuda.py tests/test_layouts.py tests/test_amp.py \
  tests/test_cuda_clipping.py tests/test_cuda_masters.py tests/test_clipping.py tests/test_masters.py \
  tests/test_master_checkpoints.py
