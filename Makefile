# Everything is installed into .venv; nothing needs root. PYTHON names another interpreter than python3.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
COMPILED := $(CURDIR)/$(VENV)/compiled
# How many tests run side by side: one more than processors, as they wait for other programs nearly half of the time.
WORKERS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)

# Images of containers mostly set this: each of the hundreds of processes that the tests start would compile all that
# it imports.
unexport PYTHONDONTWRITEBYTECODE

# Where .ci/run puts the Node packages that the interoperability tests run.
export NODE_PATH := $(CURDIR)/$(VENV)/node/node_modules

.PHONY: demo test test-fast test-pytest test-trial test-compiled deb test-deb check chaos attack bench rivals bench-rivals docs format clean

# The runtime alone, for the demonstration. What is installed from the checkout itself stays pure Python; to say so
# spares the fetching of the compiler.
$(VENV)/.runtime: setup.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	TXGEARMAN_COMPILE=0 $(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/.development: setup.py | $(VENV)/.runtime
	TXGEARMAN_COMPILE=0 $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[all,test,interop,check,docs]'
	@touch $@

# What builds the pages and nothing else, as the rest of .development is several times as large.
$(VENV)/docs/.installed: setup.py
	test -x $(VENV)/docs/bin/python || $(PYTHON) -m venv $(VENV)/docs
	TXGEARMAN_COMPILE=0 $(VENV)/docs/bin/python -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	@touch $@

# A worker and a client of the mission's text, against a server started by twistd.
demo: $(VENV)/.runtime
	@$(BIN)/python examples/delayed_reverse/demo.py

# The same tests by both runners.
test: test-pytest test-trial

# Those that need no other program, no database and no browser, in less than a minute.
test-fast: $(VENV)/.development
	$(BIN)/pytest --fast --numprocesses=$(WORKERS) --dist=worksteal --quiet

test-pytest: $(VENV)/.development
	$(BIN)/pytest --numprocesses=$(WORKERS) --dist=worksteal

test-trial: $(VENV)/.development
	$(BIN)/trial --jobs=$(WORKERS) --temp-directory=$(VENV)/_trial_temp tests

# What is compiled, and the server on top of it, pass the same tests; the package is built and tested in a folder of
# its own, and the checkout stays as it is.
test-compiled: $(VENV)/.development
	rm -rf $(COMPILED)
	TXGEARMAN_COMPILE=1 $(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--no-deps --no-build-isolation --target $(COMPILED) .
	cp -r tests pyproject.toml $(COMPILED)
	cd $(COMPILED) && TXGEARMAN_COMPILE=1 PYTHONPATH=$(COMPILED) $(CURDIR)/$(BIN)/pytest \
		tests/test_compiled.py tests/wire tests/broker tests/net tests/server tests/test_testing.py

# The package for this machine's release of Debian, into build/deb.
deb:
	contrib/debian/build

# That package is installed, upgraded under load, removed and purged on a copy of this machine's system; root is needed.
test-deb: deb $(VENV)/.development
	$(BIN)/pytest tests/contrib/debian_package.py

check: $(VENV)/.development
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pydoclint --quiet txgearman
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going -b html docs docs/_build/html

format: $(VENV)/.development
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/docs/.installed
	$(VENV)/docs/bin/sphinx-build -b html docs docs/_build/html

# Servers, databases and connections are ended again and again under load, and every job that was acknowledged
# must have run; ARGS are those of python -m tests.chaos --help.
chaos: $(VENV)/.development
	$(BIN)/python -m tests.chaos $(ARGS)

# Servers are attacked in turn while honest peers use them, with a table of what that cost these; ARGS are those of
# python -m tests.attack --help.
attack: $(VENV)/.development
	$(BIN)/python -m tests.attack $(ARGS)

# txgearman and gearmand, and clients and workers, in turn, as tables; ARGS are those of benchmarks/run.py.
bench: $(VENV)/.development
	$(BIN)/python -m benchmarks.run $(ARGS)

# txgearman beside Celery, RQ, Dramatiq, Huey and arq, each in a venv of its own: they need different versions of
# redis-py. Debian's redis-server must be installed; ARGS are those of benchmarks/rivals/run.py.
RIVALS := celery rq dramatiq huey arq

$(VENV)/rivals/%/.installed: benchmarks/rivals/requirements/%.txt
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

rivals: $(RIVALS:%=$(VENV)/rivals/%/.installed)

bench-rivals: $(VENV)/.development rivals
	$(BIN)/python -m benchmarks.rivals.run $(ARGS)

clean:
	rm -rf $(VENV) build dist *.egg-info docs/_build
