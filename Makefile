# Each target does its own set-up: .venv, torch, the extension, and what it needs itself, no more.
#
#   make demo                          ARGS="--epochs 5" is passed on, here and in test and bench
#   make test PYTHON=python3.12        another interpreter for .venv; a torch it has is kept
#   make fuzz SECONDS=600              how long; ARGS="--part P --seed N" runs a round again
#   make test TORCH=torch==2.9.1       the torch to install where the interpreter has none

PYTHON ?= python3
TORCH ?= torch==2.13.0
SECONDS ?= 60
ARGS ?=

VENV := .venv
PY := $(VENV)/bin/python
# Modules are compiled as they are first imported: pip takes half a minute to compile all of torch's.
unexport PYTHONDONTWRITEBYTECODE
INSTALL := $(PY) -m pip --quiet --disable-pip-version-check install --no-compile
BUILT := $(VENV)/.built

CLIENTS := deepspeed fastai mmengine opacus pytorch-ignite pytorch-warmup skorch stable-baselines3 \
  torchvision ultralytics
# mosaicml itself is installed without its requirements, which are an older torch, and these:
COMPOSER := coolname importlib-metadata mosaicml-cli psutil py-cpuinfo requests tabulate \
  torch_optimizer torchmetrics torchvision tqdm
CLIENTS_VENV := .venv-clients
CLIENTS_PIP := $(CLIENTS_VENV)/bin/python -m pip --quiet --disable-pip-version-check

CXX_SOURCES = $(shell find csrc tests -name '*.h' -o -name '*.inc' -o -name '*.cpp' -o -name '*.cu')

SHOW_BACKENDS := from lrfused.backends import available; \
  [print(f"==> backend {name}:", why or "ready") for name, why in available().items()]
HAS_TORCH := import torch; v = torch.__version__.split("."); exit((int(v[0]), int(v[1])) < (2, 9))

.PHONY: help demo test check clients fuzz matrix lint format docs bench sanitize clean distclean
.DELETE_ON_ERROR:

help:
	@echo "make demo       train a small network with each schedule beside torch; writes lr-curves.png"
	@echo "make test       run the test suite"
	@echo "make check      run the fast tests of each package, in a minute, before a commit"
	@echo "make clients    train in other programs' loops, in a .venv-clients of their own"
	@echo "make fuzz       run drawn tests with new seeds for SECONDS (60), against torch"
	@echo "make matrix     build, verify and test with every promised torch and Python"
	@echo "make lint       check format, style and types"
	@echo "make format     put the format right"
	@echo "make docs       build the documentation into site/, warnings as errors"
	@echo "make bench      validate, then time the step beside its competitors, and draw both"
	@echo "make sanitize   run the C++ under ASan and UBSan"
	@echo "make clean      remove what was built; distclean removes .venv too"

demo: $(BUILT)
	@$(PY) -m lrfused demo $(ARGS)
	@echo "Next:"
	@echo "  $(VENV)/bin/lrfused run --check 20 train.py   run a script of yours unedited, beside torch"
	@echo "  $(VENV)/bin/lrfused verify --quick            compare every backend with torch on this machine"
	@echo "  docs/tutorial.md                         from a first run to a resumed one; make docs builds all pages"

test: $(VENV)/.extra-test $(VENV)/.extra-docs $(VENV)/.frameworks
	@$(PY) -m pytest -n auto --maxprocesses 8 $(ARGS)

# Triton's interpreter is slow, and `make test` runs it.
check: $(VENV)/.extra-test
	@$(PY) -m pytest -n 2 -k "not triton" $$($(PY) tests/support/tier.py) $(ARGS)

# A client that cannot be installed beside this torch is a test that is skipped.
clients: $(CLIENTS_VENV)/.installed
	@$(CLIENTS_VENV)/bin/python -m pytest tests/clients -rs $(ARGS)

$(CLIENTS_VENV)/.installed: pyproject.toml Makefile
	@echo "==> $(CLIENTS_VENV), $(TORCH)"
	@$(PYTHON) -m venv $(CLIENTS_VENV)
	@$(CLIENTS_PIP) install "$(TORCH)" "setuptools>=77" ninja
	@$(CLIENTS_PIP) install --no-build-isolation --editable ".[test]"
	@for client in $(CLIENTS); do \
	  echo "==> $$client"; \
	  $(CLIENTS_PIP) install "$(TORCH)" $$client || echo "==> not installed: $$client"; \
	done
	@echo "==> mosaicml"
	@{ $(CLIENTS_PIP) install "$(TORCH)" $(COMPOSER) && $(CLIENTS_PIP) install --no-deps mosaicml; } \
	  || echo "==> not installed: mosaicml"
	@touch $@

fuzz: $(VENV)/.extra-test
	@cd tests && PYTHONPATH=.. $(abspath $(PY)) -m support.fuzz --seconds $(SECONDS) $(ARGS)

# Gigabytes for each torch with CUDA, one after another, removed afterwards.
matrix: $(VENV)/.extra-test
	@$(PY) tests/matrix.py $(ARGS)

lint: $(VENV)/.extra-lint
	@$(PY) -m ruff check --quiet --output-format concise
	@$(PY) -m ruff format --quiet --diff
	@$(VENV)/bin/clang-format --dry-run --Werror $(CXX_SOURCES)
	@$(PY) -m mypy

format: $(VENV)/.extra-lint
	@$(PY) -m ruff check --quiet --fix
	@$(PY) -m ruff format --quiet
	@$(VENV)/bin/clang-format -i $(CXX_SOURCES)

docs: $(VENV)/.extra-docs
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs --quiet build --strict --clean
	@echo "==> site/index.html"

bench: $(BUILT) $(VENV)/.competitors
	@$(PY) benchmarks/bench_step.py $(ARGS)
	@$(PY) benchmarks/draw.py
	@$(PY) benchmarks/readme.py

$(VENV)/.competitors: $(BUILT)
	@echo "==> the competitors that the benchmark is run beside"
	@$(INSTALL) "lrfused[bench]" \
	  || echo "==> not all could be installed: the benchmark will name those that are missing"
	@touch $@

# lrfused is there: of an extra only what it requires is installed, and nothing is built again.
$(VENV)/.extra-%: $(BUILT)
	@echo "==> the extra $*"
	@$(INSTALL) "lrfused[$*]"
	@touch $@

# playwright drives a Chromium of the system's, where there is one, to look at the documentation.
$(VENV)/.frameworks: $(VENV)/.torch pyproject.toml
	@echo "==> the frameworks that the tests run in"
	@$(INSTALL) playwright
	@$(INSTALL) accelerate lightning transformers
	@$(INSTALL) opacus pytorch-ignite pytorch-warmup skorch stable-baselines3
	@$(INSTALL) --no-deps timm  # its schedulers need no torchvision, which a CPU may not have
	@touch $@

sanitize: $(VENV)/.extra-test
	@PYTHON=$(PY) bash tests/sanitize.sh

clean:
	rm -rf build dist site *.egg-info lrfused/*.so lrfused/*.so.json $(BUILT)
	rm -rf .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find lrfused tests benchmarks -name __pycache__ -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV) $(CLIENTS_VENV)

# $(PYTHON)'s own torch is kept. Where $(PYTHON) is itself a virtual environment its packages are
# not "system" ones, so a path file brings them in.
$(VENV)/.torch:
	@echo "==> $(VENV), $$($(PYTHON) --version)"
	@set -e; if $(PYTHON) -c '$(HAS_TORCH)' >/dev/null 2>&1; then \
	  $(PYTHON) -m venv --system-site-packages $(VENV); \
	  $(PY) -c '$(HAS_TORCH)' >/dev/null 2>&1 || \
	    $(PYTHON) -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
	      > "$$($(PY) -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/outer.pth"; \
	else \
	  $(PYTHON) -m venv $(VENV); \
	  echo "==> $(TORCH)"; \
	  $(INSTALL) "$(TORCH)"; \
	fi
	@$(PY) -c 'import torch; print("==> torch", torch.__version__)' 2>/dev/null
	@touch $@

# Folders count too: a file added to or gone from csrc changes its folder.
$(BUILT): $(VENV)/.torch pyproject.toml setup.py lrfused/extension/compile.py $(shell find csrc)
	@echo "==> what the build needs"
	@$(INSTALL) "setuptools>=77" ninja
	@echo "==> lrfused, and what its demo needs"
	@$(INSTALL) --no-build-isolation --editable ".[demo]"
	@$(PY) -c '$(SHOW_BACKENDS)'
	@touch $@
