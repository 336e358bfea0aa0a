# Another interpreter: make PY=python3.13 test
PY ?= python3
V := .venv
INSTALL := $(V)/bin/python deploy/install.py
# The tests start perdure hundreds of times: it is compiled first, also where Python is told to write no bytecode.
PYTEST = $(V)/bin/python -m compileall -q src examples simulation && $(V)/bin/python deploy/run_tests.py
# The next Python, where there is one: `make test` runs the core and the engine on it, `make test-all` everything.
NEXT = $(shell for python in python3.13 "$$(pyenv root 2>/dev/null)"/versions/3.13*/bin/python; do \
	"$$python" -c 'import venv' 2>/dev/null && echo "$$python" && break; done)
CHROMIUM := apt-get update && apt-get install -y --no-install-recommends chromium

.DEFAULT_GOAL := help
.PHONY: help demo docs screenshots test test-long test-all next test-next run-tests check audit release bench reliability reliability-long chromium brokers postgres prometheus board \
	postgres14 constraints clean

help: ## List these targets
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 18

demo: $(V)/.app ## Run the claims example
	$(V)/bin/python -m examples.claims.demo

test: $(V)/.dev chromium brokers postgres prometheus ## Check and test everything, as CI does
	@$(MAKE) --no-print-directory -j 2 --output-sync=target check next GROUP=core
	$(PYTEST)
	@$(MAKE) --no-print-directory test-next GROUP=core SUITES="tests/core tests/engine"

test-long: $(V)/.dev chromium brokers postgres postgres14 prometheus check ## Long tests and every version of PostgreSQL, too
	$(PYTEST) --long

test-all: test ## The same as test, and every test on Python 3.13, too
	@$(MAKE) --no-print-directory test-next GROUP=dev SUITES=tests

# GROUP is what to install into the environment of the next Python: `core` for tests/core and tests/engine, `dev` for all.
next:
ifeq ($(NEXT),)
	@echo "Python 3.13 is not on this machine: its tests are left out"
else
	@$(MAKE) --no-print-directory V=$(V)/3.13 PY=$(NEXT) $(V)/3.13/.$(GROUP)
endif

test-next: next
ifneq ($(NEXT),)
	@$(MAKE) --no-print-directory V=$(V)/3.13 run-tests SUITES="$(SUITES)"
endif

run-tests:
	$(PYTEST) $(SUITES)

check: $(V)/.dev ## Static checks only: style, types, layers
	$(V)/bin/ruff check
	$(V)/bin/ruff format --check
	$(V)/bin/mypy
	$(V)/bin/lint-imports

audit: $(V)/.dev ## Ask for known vulnerabilities of the locked packages (needs an index with advisories)
	$(INSTALL) all --group dev --group audit
	$(V)/bin/python deploy/audit.py

release: $(V)/.dev check ## Build the wheel and the sdist into dist, check them, and install them with each extra
	rm -rf dist
	$(V)/bin/python -m hatchling build -d dist
	$(V)/bin/python -m twine check --strict dist/*
	$(PYTEST) --long tests/packaging

docs: $(V)/.dev ## Build the documentation into build/site
	NO_MKDOCS_2_WARNING=1 $(V)/bin/mkdocs build --strict --quiet
	@echo "open build/site/index.html"

screenshots: $(V)/.dev chromium ## Take the pictures in docs/assets from the demo
	$(V)/bin/python deploy/pictures.py

workbook: $(V)/.dev ## Write the workbook for Application Insights, deploy/application-insights/workbook.json
	$(V)/bin/python deploy/application-insights/workbook.py

board: $(V)/.dev ## Write the Grafana board, deploy/grafana/perdure.json
	$(V)/bin/python deploy/grafana/board.py

bench: $(V)/.dev ## Measure beside the peers: see benchmarks/README.md
	$(V)/bin/python -m benchmarks

reliability: $(V)/.dev ## Simulation, power cuts and kills, the quick way (part of the tests too)
	$(V)/bin/python -m reliability

reliability-long: $(V)/.dev ## The same at length, with planted bugs; writes reliability.json
	$(V)/bin/python -m reliability --long

constraints: ## Resolve constraints.txt afresh (needs uv)
	uv pip compile --universal --upgrade --generate-hashes --no-header --no-annotate --no-emit-index-url \
		--all-extras --group dev --group build --group audit --quiet --output-file constraints.txt pyproject.toml

clean: ## Remove the environment and the caches
	rm -rf $(V) dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

# The stamps make a second call quick. Every package is checked against its hash in constraints.txt.
LOCKED := pyproject.toml constraints.txt deploy/install.py

$(V)/bin/python:
	$(PY) -m venv $(V)

$(V)/.app: $(LOCKED) | $(V)/bin/python
	$(INSTALL) demo
	@touch $@

$(V)/.dev $(V)/.core: $(V)/.%: $(LOCKED) | $(V)/bin/python
	$(INSTALL) all $(if $(filter $*,dev),demo) --group $*
	@touch $@ $(V)/.app

# The dashboard's tests drive a real browser; they are never skipped in silence.
chromium:
	@command -v chromium >/dev/null && exit 0; \
	if [ "$$(id -u)" = 0 ]; then $(CHROMIUM); \
	else echo "chromium is missing. As root, run: $(CHROMIUM)" >&2; exit 1; fi

# So do those of the queues: RabbitMQ and Redis from the distribution, Azurite from npm.
BROKERS := apt-get update && apt-get install -y --no-install-recommends rabbitmq-server redis-server
brokers: $(V)/azurite/.installed
	@test -x /usr/lib/rabbitmq/bin/rabbitmq-server && command -v redis-server >/dev/null && exit 0; \
	if [ "$$(id -u)" = 0 ]; then $(BROKERS); \
	else echo "brokers are missing. As root, run: $(BROKERS)" >&2; exit 1; fi

$(V)/azurite/.installed: $(V)/.dev
	npm install --silent --no-audit --no-fund --prefix $(V)/azurite azurite@3.35.0
	@touch $@

# And those of PostgreSQL: 15 and PgBouncer from the distribution, `ip` for networks that can be cut; 16 and
# 18 come with the test group. No cluster of the machine's is touched.
POSTGRES := apt-get update && apt-get install -y --no-install-recommends postgresql-15 pgbouncer iproute2
POSTGRES14 := @embedded-postgres/linux-$(if $(filter aarch64,$(shell uname -m)),arm64,x64)@14.23.0-beta.17
postgres:
	@test -x /usr/lib/postgresql/15/bin/postgres && test -x /usr/sbin/pgbouncer && test -x /usr/bin/ip && exit 0; \
	if [ "$$(id -u)" = 0 ]; then $(POSTGRES); \
	else echo "PostgreSQL's servers are missing. As root, run: $(POSTGRES)" >&2; exit 1; fi

# A real Prometheus scrapes a worker and answers every expression of the board and the alerts; promtool reads their files.
PROMETHEUS := apt-get update && apt-get install -y --no-install-recommends prometheus
prometheus:
	@command -v prometheus >/dev/null && command -v promtool >/dev/null && exit 0; \
	if [ "$$(id -u)" = 0 ]; then $(PROMETHEUS); \
	else echo "Prometheus is missing. As root, run: $(PROMETHEUS)" >&2; exit 1; fi

postgres14: $(V)/postgres14/.installed # from npm, for --long
$(V)/postgres14/.installed: $(V)/.dev
	npm install --silent --no-audit --no-fund --prefix $(V)/postgres14 $(POSTGRES14)
	@touch $@
