# SPDX-License-Identifier: Apache-2.0
# Two commands do everything, set-up included:
#   make demo               a page with the talking character; ARGS are those of `flowact demo`
#   make demo ARGS="--wav speech.wav --seconds 20 --record out.mp4 --headless"
#   make test               checks and tests; ARGS go to pytest: make test ARGS="-k timeline"
# Besides: `make test-slow` runs the tests that take more than five seconds each, which CI does as well; `make site`
# builds the documents, `make fuzz` makes thousands of bad inputs, `make audit` asks for known vulnerabilities of what
# is installed.

ARGS ?=
BIN := .venv/bin

.PHONY: demo test test-slow fuzz audit site lint types setup setup-dev doctor bench lock clean

demo: setup
	@$(BIN)/flowact demo $(ARGS)

test: lint
	@$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile --max-worker-restart 0 $(ARGS)

test-slow: setup-dev
	@$(BIN)/python -m pytest -m slow $(ARGS)

# Bad inputs of every kind by the thousand, with a table of what became of them: minutes.
fuzz: setup-dev
	@$(BIN)/python -m pytest test/security --hypothesis-profile=fuzz $(ARGS)

# The documents, strictly: a dead link or a page that is in no menu is an error. build/site/index.html opens as it is.
site:
	@scripts/setup --extras docs
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "site: build/site/index.html"

# Known vulnerabilities of the exact versions. pip-audit lives in an environment of its own; it asks pypi.org.
audit:
	@scripts/audit $(ARGS)

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
