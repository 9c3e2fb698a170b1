# What each target does: make help

PYTHON ?= python3
# Further package index to take PyTorch from (see README.md, "Install"); empty: pip's own setting.
TORCH_INDEX ?=
WORKERS ?= 2

SOURCES := picker pretrain export streamer
DEV := .venv/bin/python
DEMO := .venv-demo/bin/python
PIP_INSTALL := -m pip install -qq --disable-pip-version-check -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test check bench chaos soak fuzz latency clean mosquitto

help: ## Print this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-16s%s\n", $$1, $$2 }'

demo: .venv-demo ## Pick real earthquakes live on this machine, from SeedLink to MQTT (under 5 minutes, installation included)
	$(DEMO) -m demo.run

test: .venv mosquitto ## Run all tests, WORKERS files at a time (2)
	OMP_NUM_THREADS=1 $(DEV) -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

check: .venv ## Check format, lint, types and import rules (no tests)
	@failed=0; \
	for check in "ruff format --check ." "ruff check ." "mypy --strict" $(if $(wildcard benchmarks/*.py),"mypy --strict benchmarks") "lint-imports --no-logo"; do \
		echo "-- $$check"; .venv/bin/$$check || failed=1; \
	done; \
	if [ $$failed = 1 ]; then echo "make check: failed, see above" >&2; exit 1; fi

bench: .venv/.bench ## Measure how many stations one core serves in real time, beside PhaseNet
	$(DEV) benchmarks/stream_cpu.py

chaos: .venv mosquitto ## Hold picks under kills, cuts and bad data against an undisturbed run (10 minutes)
	PYTHONPATH=. $(DEV) benchmarks/chaos.py

soak: .venv mosquitto ## Send a day of 20 stations through the daemon and watch its memory (up to an hour)
	PYTHONPATH=. $(DEV) benchmarks/soak.py

fuzz: .venv mosquitto ## Throw 200,000 mutated records and packets, and hostile peers, at the daemon (5 minutes)
	PYTHONPATH=. $(DEV) benchmarks/fuzz.py

latency: .venv mosquitto ## Measure the time from packet to acknowledged pick, 200 stations on this machine (6 minutes)
	PYTHONPATH=. $(DEV) benchmarks/latency.py

clean: ## Remove the environments, caches and everything else that these targets made
	rm -rf .venv .venv-demo demo/out build dist *.egg-info
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find $(SOURCES) demo tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# An environment is made again only when what it is made from has changed: its stamp file is the date.

.PHONY: .venv .venv-demo
.venv: .venv/.installed
.venv-demo: .venv-demo/.installed

.venv/.installed: pyproject.toml constraints.txt
	$(call new_environment,.venv)
	$(DEV) $(PIP_INSTALL) $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -e '.[dev]'
	@touch $@

.venv-demo/.installed: pyproject.toml constraints.txt
	$(call new_environment,.venv-demo)
	$(DEMO) $(PIP_INSTALL) -e '.[demo]'
	@$(DEMO) -c "import importlib.util as u, sys; sys.exit('.venv-demo holds torch: the demo must run without it' if u.find_spec('torch') else 0)"
	@touch $@

# SeisBench, which brings the peer of the benchmark, is no part of the development environment.
.venv/.bench: .venv/.installed
	$(DEV) $(PIP_INSTALL) -e '.[bench]'
	@touch $@

define new_environment
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	{ echo "Onset needs Python 3.11 or later, and '$(PYTHON)' is not: name one, for example make PYTHON=python3.12" >&2; exit 1; }
@echo "Making $(1) (a few minutes the first time)"
@test -x $(1)/bin/python || $(PYTHON) -m venv $(1) || \
	{ rm -rf $(1); echo "On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
endef

# The tests of MQTT 5 want Mosquitto; without it they use amqtt. Installed only where that asks nobody: as root, with apt-get.
mosquitto:
	@if [ -z "$$(PATH="$$PATH:/usr/sbin:/usr/local/sbin"; command -v mosquitto)" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "Installing Mosquitto"; \
		{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends mosquitto; } >/dev/null \
			|| echo "Mosquitto could not be installed: going on without it"; \
	fi
