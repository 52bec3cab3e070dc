# SPDX-License-Identifier: Apache-2.0
# Two commands do everything, set-up included:
#   make demo               a page with the talking character; ARGS are those of `flowact demo`
#   make demo ARGS="--wav speech.wav --seconds 20 --record out.mp4 --headless"
#   make test               all checks and tests; ARGS go to pytest: make test ARGS="-k timeline"

ARGS ?=
BIN := .venv/bin

.PHONY: demo test lint types setup setup-dev doctor bench lock clean

demo: setup
	@$(BIN)/flowact demo $(ARGS)

test: lint
	@$(BIN)/python -m pytest $(ARGS)

# Style, and the order of the rooms (who may import whom).
lint: setup-dev
	@$(BIN)/ruff check .
	@$(BIN)/lint-imports --no-logo --no-cache

types: setup-dev
	@$(BIN)/basedpyright --level error

setup:
	@scripts/setup

setup-dev:
	@scripts/setup --extras dev,train

doctor: setup
	@$(BIN)/flowact doctor $(ARGS)

bench: setup
	@$(BIN)/flowact bench $(ARGS)

lock: setup-dev
	@scripts/lock

clean:
	rm -rf .venv build install log .pytest_cache .ruff_cache .hypothesis
