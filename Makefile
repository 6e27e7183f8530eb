# Works on a bare clone with python3 (3.11) and make: uv is fetched into .tools/ when it is not on the PATH.

UV_VERSION := 0.13.9
UV := $(or $(shell command -v uv 2>/dev/null),.tools/bin/uv)
PYTHON := .venv/bin/python
MODELS ?= examples/models
ARGS ?=
PYTEST_ARGS ?=

# Ray would otherwise start each of its workers through `uv run` again.
export RAY_ENABLE_UV_RUN_RUNTIME_ENV := 0
export UV_PYTHON_DOWNLOADS := never

.DEFAULT_GOAL := help
.PHONY: help setup serve test test-unit check format bench bench-small docs proto clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: .venv/.synced ## Install everything into .venv

serve: .venv/.synced ## Serve MODELS (examples/models) on this machine; more options in ARGS
	@exec .venv/bin/trygon serve --model-repository $(MODELS) $(ARGS)

test: .venv/.synced ## Run all tests and report the coverage of branches; more options in PYTEST_ARGS
	$(PYTHON) -m pytest --cov --cov-report=term $(PYTEST_ARGS)

test-unit: .venv/.synced ## Run the tests that start no server
	$(PYTHON) -m pytest tests/unit $(PYTEST_ARGS)

check: .venv/.synced ## Check format, lint rules, types, dependency direction, generated files and the lock file
	.venv/bin/ruff format --check --quiet .
	.venv/bin/ruff check --quiet .
	.venv/bin/mypy -m trygon.cli -m trygon.errors -m trygon.settings -p trygon.deployments -p trygon.models
	.venv/bin/mypy scripts
	.venv/bin/lint-imports
	$(PYTHON) scripts/check_generated.py
	$(UV) lock --check --quiet

format: .venv/.synced ## Format the code and apply the safe fixes
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

bench: .venv/.synced ## Measure Trygon beside other servers (35 min; ARGS=--quick: 2.5 min; ARGS=--help)
	@cd benchmarks && ../$(PYTHON) -m field.run $(ARGS)

bench-small: .venv/.synced ## Run the small benchmarks one after the other
	@for benchmark in benchmarks/*.py; do echo "== $$benchmark"; $(PYTHON) "$$benchmark" || exit 1; done

docs: .venv/.synced ## Write docs/errors.md anew from the error codes
	$(PYTHON) scripts/generate_error_docs.py

proto: .venv/.synced ## Compile the .proto files anew
	$(PYTHON) scripts/compile_protos.py

clean: ## Remove what the tools have left, but neither .venv nor the server's .trygon
	rm -rf .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .coverage .coverage.* htmlcov build dist
	find . -name __pycache__ -type d -not -path './.venv/*' -not -path './.tools/*' -prune -exec rm -rf {} +

.venv/.synced: pyproject.toml uv.lock | $(UV)
	@echo "Installing the dependencies into .venv; the first time takes a few minutes."
	@$(UV) sync --frozen --quiet
	@touch $@

.tools/bin/uv:
	@echo "Installing uv $(UV_VERSION) into .tools."
	@python3 -m venv .tools
	@.tools/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
