# make demo      runs a few scenes through the embedded models; overlays in build/demo
# make test      runs all tests that need no GPU; compiles llama.cpp, which takes minutes and a C++ compiler
# make test-gpu  runs the tests that need an NVIDIA GPU; on a Jetson first: python3 -m venv --system-site-packages .venv
# make check     runs the formatter, the linter, mypy and the fast tests
# make docs      builds the documentation site; open build/site/index.html
# make clean     removes what the targets above made
#
# Each target creates .venv and installs what it needs; stamp files keep a second call from installing again. pip reads
# its own settings: PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu makes `make test` use PyTorch's CPU wheels.

PYTHON ?= python3
VENV := .venv
ROS := $(VENV)/ros
BIN := $(VENV)/bin
# GCC 12 omits the shapes of AMX tiles from ggml's products: a quantized policy ends the process with SIGILL.
AMX := $(shell grep -q amx_tile /proc/cpuinfo 2>/dev/null && $(CXX) -mno-amx-tile -x c++ -E /dev/null >/dev/null 2>&1 && echo yes)
ifeq ($(AMX),yes)
NO_AMX := -mno-amx-tile -mno-amx-int8 -mno-amx-bf16
export CMAKE_ARGS ?= -DCMAKE_C_FLAGS='$(NO_AMX)' -DCMAKE_CXX_FLAGS='$(NO_AMX)'
LLAMA := $(shell grep -o -m1 'llama-cpp-python[=~<>][^"]*' pyproject.toml)# not from pip's cache, which knows no flags
endif
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --prefer-binary
SOURCES := pyproject.toml wise_edge/__init__.py

.PHONY: help demo test test-gpu check docs clean

help:
	@sed -n '/^# make/s/^# //p' Makefile

demo: $(VENV)/.installed-demo
	$(BIN)/wise-edge demo --out build/demo

test: $(VENV)/.installed-test $(ROS)/.installed
	$(BIN)/python -m pytest -q --numprocesses auto --dist worksteal

test-gpu: $(VENV)/.installed-test
	$(BIN)/python -m pytest -q -m gpu

check: $(VENV)/.installed-test
	scripts/check

# The API reference is read from the sources, which are not imported. Not --quiet: it hides warnings from --strict too.
docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) build dist wise_edge.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "wise-edge needs Python 3.10; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)
	@touch $@

# No torch: the demo runs the committed ONNX bundle.
$(VENV)/.installed-demo: $(VENV)/.made $(SOURCES)
	$(INSTALL) -e '.[onnx]'
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.made pyproject.toml
	$(INSTALL) -e '.[docs]'
	@touch $@

$(VENV)/.installed-test: $(VENV)/.made $(SOURCES)
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11) and "training and tests need Python 3.11; make clean, then set PYTHON=")'
	$(if $(NO_AMX),$(INSTALL) --no-cache-dir '$(LLAMA)')
	$(INSTALL) -e '.[data,dora,edgellm,export,llama,qlora,rerun,ros,rtx,segmenters,serve,supervision,train,video,dev]'
	@touch $(VENV)/.installed-demo $@

# rclpy's wheels (https://github.com/ycheng517/ros-python-wheels) exist for x86-64 and Python up to 3.13. They restart every
# Python of their environment, so they get an environment of their own; without them the tests on rclpy are skipped.
$(ROS)/.installed: $(VENV)/.made $(SOURCES)
	@($(PYTHON) -m venv $(ROS) && $(ROS)/bin/python -m pip install --quiet --disable-pip-version-check \
		ros-rclpy==9.1.2 ros-rmw-fastrtps-cpp ros-kilted-sensor-msgs ros-kilted-std-srvs ros-kilted-diagnostic-msgs \
		-e '.[onnx]' && touch $@) || echo 'no rclpy for this Python: the tests on it are skipped'
