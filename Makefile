# The commands of the project. `make train` and `make test` work in a fresh clone: they make .venv and install into it.
#
#   make train                     train the default network
#   make test                      lint, type check, tests
#   make test PYTHON=python3.12    with another interpreter (remove .venv first)

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
NATIVE := setup.py CMakeLists.txt $(wildcard csrc/*)
JOBS ?= 2
SANITIZE ?= address

.PHONY: help venv train test sweep lint typecheck docs bench sanitize tsan-check aarch64-check wheel clean gpu-check gpu-bench gpu-resources

help:
	@sed -n 's/^#   //p' Makefile; echo "other targets: venv sweep lint typecheck docs bench sanitize tsan-check aarch64-check wheel clean gpu-check gpu-bench gpu-resources"

# --- set-up -----------------------------------------------------------------------------------------------------------

venv: $(BIN)/python

# Debian and Ubuntu split ensurepip off into python3-venv; virtualenv, where present, brings its own pip.
$(BIN)/python:
	@command -v $(PYTHON) >/dev/null 2>&1 || { \
	  echo "error: '$(PYTHON)' was not found. Name a Python of at least 3.11, for example: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: pyframe needs Python 3.11 or newer, but '$(PYTHON)' is $$($(PYTHON) --version 2>&1). For example: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@echo "creating $(VENV) with $$($(PYTHON) --version 2>&1)"
	@$(PYTHON) -m venv $(VENV) >$(VENV).log 2>&1 || { rm -rf $(VENV); $(PYTHON) -m virtualenv --quiet $(VENV) >>$(VENV).log 2>&1; } || { \
	  rm -rf $(VENV); cat $(VENV).log >&2; rm -f $(VENV).log; \
	  echo "error: '$(PYTHON)' cannot create virtual environments. On Debian or Ubuntu: apt install python3-venv" >&2; exit 1; }
	@rm -f $(VENV).log

# A stamp says which set of packages is installed. Both sets install the package itself editable, which builds the
# native extension; where that is impossible the installation goes on without it, and the last line says why.
define report_native
	@$(BIN)/python -c "from pyframe.backend import native as n; print('native extension:', n.isa() if n.available() else f'not in use: {n.why_not()}')"
endef

$(VENV)/.stamp-train: $(BIN)/python pyproject.toml $(NATIVE)
	@echo "installing pyframe and what training needs"
	@$(PIP) --editable '.[examples,plots]'
	$(report_native)
	@touch $@

$(VENV)/.stamp-dev: $(BIN)/python pyproject.toml $(NATIVE)
	@echo "installing pyframe and the development packages"
	@$(PIP) --editable '.[dev]'
	$(report_native)
	@touch $@ $(VENV)/.stamp-train

# --- the two commands -------------------------------------------------------------------------------------------------

train: $(VENV)/.stamp-train
	$(BIN)/pyframe train lenet

# Everything runs even after a failure, the tests last so that their summary is the last thing to read.
test: $(VENV)/.stamp-dev
	@status=0; \
	$(BIN)/ruff check . || status=1; \
	$(BIN)/ruff format --check . || status=1; \
	$(BIN)/mypy || status=1; \
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --doctest-modules tests pyframe benchmarks/timing.py || status=1; \
	[ $$status = 0 ] || echo "make test: something failed, see above" >&2; \
	exit $$status

# The same with all seeds, sizes and steps, of which CI runs the first ones (tests/sweeps.py).
sweep:
	CI=true SWEEP=true $(MAKE) test

# --- parts and tools --------------------------------------------------------------------------------------------------

lint: $(VENV)/.stamp-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

typecheck: $(VENV)/.stamp-dev
	$(BIN)/mypy

docs: $(VENV)/.stamp-dev
	$(BIN)/mkdocs build --strict

bench: $(VENV)/.stamp-dev
	@set -e; for file in benchmarks/[a-z]*.py; do \
	  name=$$(basename $$file .py); \
	  if grep -q '__main__' $$file; then echo "== benchmarks.$$name"; $(BIN)/python -m benchmarks.$$name; fi; \
	done
	$(BIN)/python -m benchmarks.kernels
	$(BIN)/python -m docs.render

# The native tests on an extension built with a sanitizer: SANITIZE=address (the default), undefined or thread. A
# sanitizer's runtime has to be in the process before Python starts.
sanitize: $(VENV)/.stamp-dev
	PATH=$(CURDIR)/$(BIN):$$PATH cmake -S . -B build/sanitize-$(SANITIZE) -G Ninja -DPYFRAME_SANITIZE=$(SANITIZE) -DCMAKE_BUILD_TYPE=RelWithDebInfo \
	  -DPython_EXECUTABLE=$(CURDIR)/$(BIN)/python -DPYFRAME_OUTPUT_DIR=$(CURDIR)/build/sanitize-$(SANITIZE)/module
	PATH=$(CURDIR)/$(BIN):$$PATH cmake --build build/sanitize-$(SANITIZE) --parallel $(JOBS)
	runtime=$$(ldd build/sanitize-$(SANITIZE)/module/_native*.so | sed -n 's/.*=> \(.*lib[atu][a-z]*san[^ ]*\).*/\1/p'); \
	LD_PRELOAD="$$runtime $$(g++ -print-file-name=libstdc++.so.6)" ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 TSAN_OPTIONS=die_after_fork=0:allocator_may_return_null=1 \
	  PYFRAME_NATIVE_PATH=$$(echo $(CURDIR)/build/sanitize-$(SANITIZE)/module/_native*.so) \
	  $(BIN)/python -m pytest -n $(JOBS) -p no:cacheprovider tests/packaging/test_native.py tests/packaging/test_thread_pool.py tests/native

# The thread pool and the matrix product without Python (tests/native/selftest.cpp), in a minute: under ThreadSanitizer,
# and cross-compiled to 64-bit ARM and run in an emulator (Debian: apt install g++-aarch64-linux-gnu qemu-user).
SELFTEST := tests/native/selftest.cpp $(addprefix csrc/,allocator.cpp cpu_features.cpp fork.cpp gemm.cpp thread_pool.cpp)
SELFTEST_FLAGS := -std=c++17 -O1 -g -Wall -Wextra -Wno-psabi -fno-math-errno -fno-trapping-math -Icsrc
AVX2 := -mavx2 -mfma -mf16c -mbmi -mbmi2
AVX512 := $(AVX2) -mavx512f -mavx512dq -mavx512cd -mavx512bw -mavx512vl -mprefer-vector-width=512

tsan-check:
	@mkdir -p build/tsan
	$(CXX) $(SELFTEST_FLAGS) -fsanitize=thread -DPYFRAME_ISA=baseline -c csrc/isa/gemm.cpp -o build/tsan/baseline.o
	$(CXX) $(SELFTEST_FLAGS) -fsanitize=thread -DPYFRAME_ISA=avx2 $(AVX2) -c csrc/isa/gemm.cpp -o build/tsan/avx2.o
	$(CXX) $(SELFTEST_FLAGS) -fsanitize=thread -DPYFRAME_ISA=avx512 $(AVX512) -c csrc/isa/gemm.cpp -o build/tsan/avx512.o
	$(CXX) $(SELFTEST_FLAGS) -fsanitize=thread $(SELFTEST) build/tsan/*.o -pthread -o build/tsan/selftest
	TSAN_OPTIONS=die_after_fork=0 setarch -R build/tsan/selftest

AARCH64_CXX ?= aarch64-linux-gnu-g++
aarch64-check:
	@mkdir -p build/aarch64
	@set -e; for file in csrc/isa/*.cpp; do echo "compiling $$file"; \
	  $(AARCH64_CXX) $(SELFTEST_FLAGS) -O0 -fsyntax-only -DPYFRAME_ISA=neon $$file; done
	$(AARCH64_CXX) $(SELFTEST_FLAGS) -DPYFRAME_ISA=neon $(SELFTEST) csrc/isa/gemm.cpp -pthread -static -o build/aarch64/selftest
	qemu-aarch64 build/aarch64/selftest

wheel: $(VENV)/.stamp-dev
	$(BIN)/python -m build
	@ls -l dist

# On a machine with a GPU and no network: any Python that has NumPy, CuPy, cuda.core and the rest will do
# (make gpu-check GPU_PYTHON=python3). Results are written to benchmarks/results/<gpu>.json after every item.
GPU_PYTHON ?= $(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON))
GPU_BUILD = $(GPU_PYTHON) -c "import sys; from pyframe.backend import native; sys.exit(not native.available())" || \
	$(GPU_PYTHON) setup.py --quiet build_ext --inplace

# The build counts: check ends within 300 seconds, bench within 540. ARGS="--dry-run" needs no GPU, ARGS="--only NAME" runs a part.
gpu-check:
	@begun=$$(date +%s); $(GPU_BUILD); \
	$(GPU_PYTHON) -m tests.gpu.check --seconds $$((290 - $$(date +%s) + begun)) $(ARGS)

gpu-bench:
	@begun=$$(date +%s); $(GPU_BUILD); \
	$(GPU_PYTHON) -m benchmarks.gpu.bench --seconds $$((530 - $$(date +%s) + begun)) $(ARGS)

# What every kernel needs on three architectures: kernels/resources.json, which a test compares. Needs no GPU.
gpu-resources: $(VENV)/.stamp-dev
	$(BIN)/python -m benchmarks.gpu.resources

clean:
	rm -rf build dist site *.egg-info .mypy_cache .pytest_cache .ruff_cache
	rm -f pyframe/_native*.so pyframe/_native_build.json $(VENV)/.stamp-*
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
