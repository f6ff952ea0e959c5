# Everything runs in .venv, which is set up once and again when its inputs change.
#   make demo | test | lint | bench | compare | curves | instructions | soak | fuzz [SECONDS=60] | sanitize | audit | echarts
#   make screenshot | clean
#   ARGS='…' goes to pytest, the comparison, the soak or the count; PYTHON=python3.12 chooses the interpreter of a new .venv.

PYTHON ?= python3
SECONDS ?= 60
BIN := .venv/bin
CYTHON := $(wildcard fastpost/*.pyx fastpost/*.pxd)
BUILD_REQUIRES := $(shell sed -n '/^requires = /{s/.*\[\(.*\)\]/\1/;s/", "/" "/gp}' pyproject.toml)
SANITIZED := build/sanitize
NEEDED := Debian, Ubuntu: apt install gcc make python3-dev python3-venv

.PHONY: demo test lint bench compare curves instructions soak fuzz sanitize audit echarts \
  screenshot clean

# 4,096 small files and three large ones go to the embedded server.
demo: .venv/.built
	@tree=$$(mktemp -d) && trap 'rm -rf "$$tree"' EXIT && trap 'exit 130' INT TERM && \
	for folder in red green blue cyan; do \
	  mkdir "$$tree/$$folder" && head -c 4M /dev/urandom | split -b 4K -a 3 - "$$tree/$$folder/" || exit 1; \
	done && \
	for name in one two three; do head -c 64M /dev/urandom > "$$tree/$$name.bin" || exit 1; done && \
	$(BIN)/fastpost upload "$$tree" --concurrency 50

test: .venv/.dev
	$(BIN)/pytest $(ARGS)

lint: .venv/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	PATH="$(CURDIR)/$(BIN):$$PATH" cython-lint fastpost
	$(BIN)/mypy

# Saved under .benchmarks; each run is compared with the one before.
bench: .venv/.bench
	$(BIN)/pytest bench --timeout 0 --benchmark-only --benchmark-autosave --benchmark-columns min,median,iqr,ops \
	  $(if $(wildcard .benchmarks/*/*.json),--benchmark-compare) $(ARGS)

# fastpost and its rivals against real servers; about an hour. ARGS=--quick shows in minutes whether everything works.
compare: .venv/.bench
	@$(BIN)/python -m bench.compare $(ARGS); code=$$?; \
	$(BIN)/python -m bench.compare --report $(filter --quick,$(ARGS)) && exit $$code
# How cost grows with files, sizes, streams and connections: docs/curves.png. A quarter of an hour.
curves: .venv/.bench
	$(BIN)/python -m bench.curves $(ARGS)

# The session's instructions against bench/instructions.json; ARGS=--record writes it anew.
instructions: .venv/.dev
	$(BIN)/python -m bench.instructions $(ARGS)

# A million uploads to a server that misbehaves; some minutes, 5 GB of files the first time.
soak: .venv/.bench
	$(BIN)/python -m bench.soak $(ARGS)

fuzz: .venv/.dev
	@for script in tests/fuzz/fuzz_*.py; do echo "$$script" && $(BIN)/python "$$script" --seconds $(SECONDS) || exit 1; done

# Any leak fails, the interpreter's too: what can't be helped is in tests/lsan.supp.
sanitize: .venv/.dev
	FASTPOST_DEBUG=1 FASTPOST_SANITIZE=1 $(BIN)/python setup.py -q build --build-base $(SANITIZED) --build-lib $(SANITIZED)/lib
	LD_PRELOAD=$$($${CC:-gcc} -print-file-name=libasan.so) PYTHONPATH=$(SANITIZED)/lib PYTHONMALLOC=malloc \
	ASAN_OPTIONS=detect_leaks=1:abort_on_error=1 \
	LSAN_OPTIONS=suppressions=$(CURDIR)/tests/lsan.supp:print_suppressions=0 \
	UBSAN_OPTIONS=print_stacktrace=1 \
	$(BIN)/pytest -m 'not slow and not unsanitized' --timeout 600 --capture sys $(ARGS)

# Known vulnerabilities of what fastpost loads, by PyPI.
audit: .venv/.dev
	@$(BIN)/python .ci/audit.py

# What draws the charts of --html, fetched from npm: the same as here? VERSION=6.2.0 takes that one instead.
echarts:
	.ci/echarts $(VERSION)

# docs/bench-page.png, drawn anew from a sweep of the embedded server. Needs Chromium.
screenshot: .venv/.dev
	$(BIN)/python -m bench.screenshot

clean:
	rm -rf .venv build dist .benchmarks *.egg-info fastpost/_*.so fastpost/_*.c

# --- set-up ------------------------------------------------------------------------------------------

$(BIN)/pip:
	@echo "Setting up .venv, which takes a minute or two, once."
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "fastpost needs Python 3.11 or newer: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@test -f "$$($(PYTHON) -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" || \
	  { echo "The header files of $(PYTHON) are missing. $(NEEDED)" >&2; exit 1; }
	@command -v $${CC:-$$($(PYTHON) -c 'import sysconfig; print(sysconfig.get_config_var("CC").split()[0])')} >/dev/null || \
	  { echo "A C compiler is missing. $(NEEDED)" >&2; exit 1; }
	@if $(PYTHON) -c 'import ensurepip' 2>/dev/null; then $(PYTHON) -m venv .venv; \
	elif $(PYTHON) -c 'import virtualenv' 2>/dev/null; then $(PYTHON) -m virtualenv -q .venv; \
	elif $(PYTHON) -m pip install -q --target build/virtualenv virtualenv 2>/dev/null; \
	then PYTHONPATH=build/virtualenv $(PYTHON) -m virtualenv -q .venv; \
	else echo "$(PYTHON) can make no environment. $(NEEDED)" >&2; exit 1; fi

define INSTALL
$(BIN)/pip install -q --upgrade 'pip>=25.1' $(BUILD_REQUIRES)
PYTHONWARNINGS='ignore:Editable installation' $(BIN)/pip install -q --no-build-isolation -e .
endef

# A change of Cython files alone compiles what changed; the first install and other changes, everything.
.venv/.built: pyproject.toml setup.py $(CYTHON) | $(BIN)/pip
	$(if $(filter %.toml %.py,$?),$(INSTALL),$(BIN)/python setup.py -q build_ext --inplace)
	@touch $@

.venv/.dev .venv/.bench: .venv/.%: .venv/.built pyproject.toml
	$(BIN)/pip install -q --group $*
	@touch $@
