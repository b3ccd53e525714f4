#!/usr/bin/env bash
# Build the C++ with ASan and UBSan in a folder of its own, and run tests that reach all of it: the
# loops of each instruction set by themselves, then the extension.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=$(realpath -s "${PYTHON:-python3}")
root=build/sanitize
mkdir -p "$root"
cp -r csrc lrfused tests setup.py pyproject.toml README.md LICENSE "$root"
cd "$root"

# direct, parallel and step need torch.
mapfile -t loops < <(find csrc/cpu -name '*.cpp' | grep -vE '/(direct|parallel|step)\.cpp')
c++ -std=c++17 -O1 -ffp-contract=off -I. -fsanitize=address,undefined \
  -fno-sanitize-recover=undefined tests/portable/loops.cpp "${loops[@]}" -o loops
./loops > /dev/null && echo "==> the loops of each instruction set: nothing found"

rm -f lrfused/_C*.so
LRFUSED_SANITIZE=1 LRFUSED_REQUIRE_EXTENSION=1 "$PYTHON" setup.py --quiet build_ext --inplace

# Python is not instrumented: its runtime must be there first, and its own leaks are not ours. With
# -s their report is printed: the process ends before pytest would print it.
LD_PRELOAD="$(c++ -print-file-name=libasan.so) $(c++ -print-file-name=libubsan.so)" \
ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
PYTHONPATH=$PWD "$PYTHON" -m pytest -s -p no:cacheprovider -k "not subprocess" \
  "${@:-tests/test_engine.py}" tests/test_{amp,clipping,cuda,cuda_clipping,cuda_masters}.py \
  tests/test_{cycles,direct,groups,group_changes,history,layouts,master_checkpoints,masters}.py \
  tests/test_{pace,plateau,shared_memory,tensor_rates,zero_grad}.py
