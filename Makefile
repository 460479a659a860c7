# From a bare machine (Python 3.11, a C++ compiler, make) to a running system. `make help` lists all.
SHELL := /bin/bash
PYTHON ?= python3
CLIP ?=
# Elsewhere than here pip may offer a CUDA build of torch; see README, Install.
# That index holds few versions of what torch needs: those come with the other packages.
TORCH_INDEX_URL ?=

# `make DISTRO=jazzy TARGET`: another ROS 2, with its own .venv-jazzy, install-jazzy and build-jazzy.
DISTRO ?= kilted
SUFFIX := $(patsubst %,-%,$(filter-out kilted,$(DISTRO)))
ifeq ($(wildcard requirements/constraints$(SUFFIX).txt),)
$(error DISTRO=$(DISTRO) is not known: requirements/constraints$(SUFFIX).txt does not exist; choose kilted or jazzy)
endif
VENV := $(CURDIR)/.venv$(SUFFIX)
BIN := $(VENV)/bin
PREFIX := $(CURDIR)/install$(SUFFIX)
BUILD := build$(SUFFIX)
CONSTRAINTS := $(VENV)/.constraints.txt
PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check
LISTS := core ros$(SUFFIX) detector demo view training dev
TIMED := $(PYTHON) scripts/timed.py
# The wheels of ROS 2 make the virtual environment the ROS 2 prefix.
ROS_ENV := PATH="$(BIN):$$PATH" AMENT_PREFIX_PATH="$(VENV)" CMAKE_PREFIX_PATH="$(VENV)"

.PHONY: help setup messages body demo test test-slow lint clean
.NOTPARALLEL:

help:  ## this list
	@sed -n 's|^\([a-z-]*\):.*## |  make \1\t|p' $(MAKEFILE_LIST) | expand -t 20

setup: messages body  ## everything that demo and test need

messages: $(PREFIX)/.built  ## compile msg/, srv/ and action/ into install/

demo: setup  ## video -> ROS 2 -> out/demo (CLIP=squats|multiview|PATH)
	$(BIN)/dposer demo $(if $(CLIP),--clip $(CLIP))

test: setup  ## the fast tests
	$(BIN)/python -m pytest -m 'not slow'

test-slow: setup  ## the slow tests
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/.installed  ## style, format and import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

clean:  ## remove everything that was built, the virtual environment too
	rm -rf $(VENV) $(PREFIX) $(BUILD) out

body: $(VENV)/.installed
	$(TIMED) 'open body' $(BIN)/dposer body build

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; v = sys.version_info; v[:2] == (3, 11) or sys.exit( \
	  f"error: Python {v[0]}.{v[1]} found, 3.11 needed: make PYTHON=/path/to/python3.11")'
	$(TIMED) 'virtual environment' $(PYTHON) -m venv $(VENV)
	@touch $@

# Of two lines for one package the first holds: that of the distribution.
$(CONSTRAINTS): $(VENV)/.created $(wildcard requirements/constraints*.txt)
	awk -F== '!seen[$$1]++' requirements/constraints$(SUFFIX).txt requirements/constraints.txt > $@

$(VENV)/.packages: $(CONSTRAINTS) $(wildcard requirements/*.txt)
ifneq ($(TORCH_INDEX_URL),)
	$(TIMED) 'torch' $(PIP_INSTALL) -c $(CONSTRAINTS) torch --no-deps --index-url $(TORCH_INDEX_URL)
endif
	$(TIMED) 'packages' $(PIP_INSTALL) -c $(CONSTRAINTS) \
	  $(LISTS:%=-r requirements/%.txt)
	$(TIMED) 'packages without their dependencies' $(PIP_INSTALL) --no-deps -r requirements/no-deps.txt
	@touch $@

$(VENV)/.installed: $(VENV)/.packages pyproject.toml
	$(TIMED) 'this package' $(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

# The wheels of ROS 2 lack these packages; /tf and the topics of REP-155 need them.
.PHONY: tf2_msgs hri_msgs
tf2_msgs hri_msgs:
	$(ROS_ENV) $(TIMED) '$@: configure' $(BIN)/cmake -S ros_interfaces/$@ -B $(BUILD)/$@ \
	  -G Ninja -DCMAKE_INSTALL_PREFIX=$(PREFIX) -DPython3_EXECUTABLE=$(BIN)/python \
	  -DBUILD_TESTING=OFF --log-level=WARNING
	$(ROS_ENV) $(TIMED) '$@: build' $(BIN)/cmake --build $(BUILD)/$@ --target install

$(PREFIX)/.built: $(VENV)/.installed CMakeLists.txt package.xml $(wildcard cmake/* msg/* srv/* action/* scripts/*.in \
  launch/* config/*)
	$(ROS_ENV) $(TIMED) 'messages: configure' $(BIN)/cmake -S . -B $(BUILD)/messages -G Ninja \
	  -DCMAKE_INSTALL_PREFIX=$(PREFIX) -DPython3_EXECUTABLE=$(BIN)/python -DBUILD_TESTING=OFF \
	  -DMESSAGES_ONLY=ON --log-level=WARNING
	$(ROS_ENV) $(TIMED) 'messages: build' $(BIN)/cmake --build $(BUILD)/messages --target install
	@for package in tf2_msgs hri_msgs; do $(BIN)/python -c "import $$package" 2> /dev/null \
	  || $(MAKE) --no-print-directory $$package || exit 1; done
	@$(BIN)/python -m dposer_ros.environment
	@touch $@
