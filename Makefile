# Everything without a ROS installation: set-up, demo, tests. In a ROS 2 workspace use colcon (README.md).
#   ROS_DISTRO_WHEELS=kilted make setup    the Kilted wheels instead of Jazzy's
#   PYTHON=python3.11 make setup           another interpreter (3.10 to 3.12)

SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

ROS_DISTRO_WHEELS ?= jazzy
export ROS_DISTRO_WHEELS
# Nodes of the demo and of the tests talk to this machine only.
export ROS_AUTOMATIC_DISCOVERY_RANGE := LOCALHOST

BIN := .venv/bin
READY := .venv/ready-$(ROS_DISTRO_WHEELS)
SHARED_FILES := $(wildcard launch/* config/* rviz/* scripts/*_node scripts/momap_nodes scripts/bag_player momap_ros/ros/fastdds.xml)

# Wheels and a ROS installation must never meet in one process: two rclpy, two sets of libraries.
ifneq ($(ROS_DISTRO)$(AMENT_PREFIX_PATH),)
ifneq ($(filter-out help clean,$(or $(MAKECMDGOALS),help)),)
$(error This shell has sourced ROS 2 $(ROS_DISTRO). Use `colcon build` in your workspace, or start a shell that has not sourced it, or: env -u ROS_DISTRO -u AMENT_PREFIX_PATH -u PYTHONPATH -u LD_LIBRARY_PATH make $(MAKECMDGOALS))
endif
endif

.PHONY: help setup demo test check bench clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-7s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

setup: $(READY)/messages ## Create .venv, install everything, build the messages (again only what changed)

demo: setup ## Play the bundled bag through the nodes; pictures, table and forecast bag in out/demo
	@$(BIN)/momap demo --out out/demo

test: setup $(READY)/test-packages ## Run all tests
	@$(BIN)/python -m pytest

check: setup ## Lint, format, types and the fast tests
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -m "not slow"

bench: setup ## Measure every stage, and the network in all its variants; JSON and tables in out/bench
	@$(BIN)/momap bench --out out/bench
	@$(BIN)/momap bench --out out/bench --network

clean: ## Remove .venv and everything built (out/ and runs/ stay)
	rm -rf .venv build install log *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find momap_ros test -name __pycache__ -prune -exec rm -rf {} +

$(READY)/venv: scripts/setup.sh
	@scripts/setup.sh packages
	@scripts/setup.sh venv
	@mkdir -p $(READY) && touch $@

$(READY)/wheels: $(READY)/venv $(wildcard requirements/*.txt) setup.py package.xml
	@scripts/setup.sh wheels
	@touch $@

$(READY)/messages: $(READY)/wheels $(wildcard msg/*.msg) CMakeLists.txt $(SHARED_FILES)
	@scripts/setup.sh messages
	@touch $@

$(READY)/test-packages: $(READY)/venv
	@scripts/setup.sh test-packages
	@touch $@
