# greentls: what a person would type. `make help` lists it.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

.PHONY: help run check check-tests test coverage test-all test-cpython lint types docs dist chaos fuzz sanitize adversary bogo soak bench
.PHONY: test-pure test-system versions memcached tools clean
.DEFAULT_GOAL := help

# make test FOUNDATION=system: over the system's libssl, through greentls.openssl._native
ifeq ($(FOUNDATION),system)
export GREENTLS_OPENSSL := system
NATIVE := greentls/openssl/_native.abi3.so
# It is built after its headers have been installed.
$(VENV)/.installed-test: GREENTLS_OPENSSL :=
endif

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:[^#]*## /\t/' | expand -t 12

run: $(VENV)/.installed  ## the HTTPS demo on https://localhost:8443
	$(BIN)/python -m greentls serve --bind localhost:8443

test: $(VENV)/.installed-test $(NATIVE) memcached tools benchmarks/load benchmarks/floor  ## every test; FOUNDATION=system: over the system's OpenSSL
	$(BIN)/python -m pytest -n auto --dist loadfile $(TESTS)

check:  ## lint, types and the tests that need nothing but Python and little time, in a minute
	$(MAKE) --no-print-directory -j2 -O lint types check-tests

# Without any other program on the path, so that a test that needs one and has not the mark is found.
check-tests: $(VENV)/.installed-lint
	PATH="$(CURDIR)/$(BIN)" $(BIN)/python -m pytest -q -n auto --dist loadfile -m "not programs and not long"

# Without what needs other programs, except for keys and stores, which are little without them; and without the tests that
# are counted by how much they do in a given time.
coverage: $(VENV)/.installed-test memcached tools  ## the lines of greentls that tests run; fails if they are fewer than pyproject.toml says
	rm -f .coverage*
	$(BIN)/python -m coverage run -m pytest -q -n auto --dist loadfile -m "not programs" \
	    --ignore=tests/adversary --ignore=tests/cpython --ignore=tests/soak
	$(BIN)/python -m coverage run -m pytest -q -n auto --dist loadfile -m programs tests/keys tests/stores
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report

versions:  ## check's tests with older versions of what greentls needs; VERSIONS=oldest PYTHON=python3.10
	PIP_CONSTRAINT=$(CURDIR)/tests/versions/$(or $(VERSIONS),oldest).txt $(MAKE) --no-print-directory check-tests \
		VENV=.venv-$(or $(VERSIONS),oldest)-$(notdir $(PYTHON))

test-system:  ## what stands on OpenSSL, over the system's
	$(MAKE) --no-print-directory test FOUNDATION=system TESTS="tests/openssl tests/core"

test-pure: $(VENV)/.installed-test  ## what stands on the pump, without the compiled one
	GREENTLS_PURE=1 $(BIN)/python -m pytest -q -n auto --dist loadfile tests/openssl tests/core tests/bounds tests/test_stream.py

test-all:  ## every test, on each Python from 3.10 that is installed
	sh tests/all_pythons.sh

test-cpython:  ## CPython's own tests of ssl over greentls, on each Python from 3.10 that is installed
	TESTS=tests/cpython sh tests/all_pythons.sh

lint: $(VENV)/.installed-lint  ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-lint  ## mypy --strict on greentls/, examples/ and tests/typing/
	$(BIN)/mypy

docs: $(VENV)/.installed-docs  ## docs/_build/index.html
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build

chaos: $(VENV)/.installed-test  ## memcached at its worst, from seed to seed; SECONDS=600
	CHAOS_SECONDS=$(or $(SECONDS),600) $(BIN)/python -m pytest tests/ssl/test_chaos.py

dist: $(VENV)/bin/python  ## wheel and sdist, in dist/
	$(BIN)/pip install --quiet --disable-pip-version-check build
	$(BIN)/python -m build --outdir dist .

fuzz: $(VENV)/.installed-test  ## coverage-guided fuzzing of the parser; SECONDS=600
	$(BIN)/python -m tests.wire.fuzz_parser -max_total_time=$(or $(SECONDS),600)

sanitize: $(VENV)/.installed-test  ## the compiled pump under ASan and UBSan: its tests, and fuzzing for SECONDS=60
	@sh tests/need.sh cc gcc
	$(BIN)/python -m tests.openssl.sanitize --seconds $(or $(SECONDS),60)

adversary: $(VENV)/.installed-test  ## hostile peers, other ones each time, with a seed for each failure; SECONDS=600 each
	$(BIN)/python -m tests.adversary.adversary --seconds $(or $(SECONDS),600)
	$(BIN)/python -m tests.adversary.adversary --seconds $(or $(SECONDS),600) --loop asyncio

bogo: $(VENV)/.installed-test  ## BoringSSL's test runner, which you have to bring; RUNNER=path/to/runner
	$(BIN)/python -m tests.bogo.bogo $(RUNNER)

soak: $(VENV)/.installed-test tools  ## greenlets that are killed anywhere, then ordinary clients; for SECONDS=600 each
	$(BIN)/python -W error -X faulthandler -m tests.soak.soak --seconds $(or $(SECONDS),600)
	$(BIN)/python -m tests.soak.clients --seconds $(or $(SECONDS),600)

bench: $(VENV)/.installed-bench  ## greentls beside the field, in 20 minutes: tables and drawings in docs/benchmarks/
	$(BIN)/python -m benchmarks all --docs docs/benchmarks

benchmarks/load benchmarks/floor: %: %.c
	@sh tests/need.sh cc gcc
	@sh tests/need.sh /usr/include/openssl/ssl.h libssl-dev
	cc -O2 -Wall -Wextra -o $@ $< -lssl -lcrypto

greentls/openssl/_native.abi3.so: setup.py greentls/openssl/declarations.py | $(VENV)/.installed-test
	@sh tests/need.sh /usr/include/openssl/ssl.h libssl-dev
	GREENTLS_OPENSSL=system $(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .

memcached:
	@sh tests/need.sh memcached memcached

tools:
	@sh tests/need.sh openssl openssl
	@sh tests/need.sh /usr/include/openssl/ssl.h libssl-dev
	@sh tests/need.sh curl curl
	@sh tests/need.sh wget wget
	@sh tests/need.sh h2load nghttp2-client
	@sh tests/need.sh ab apache2-utils
	@sh tests/need.sh wrk wrk
	@sh tests/need.sh strip binutils
	@sh tests/need.sh gnutls-cli gnutls-bin
	@sh tests/need.sh tstclnt libnss3-tools
	@sh tests/need.sh node nodejs
	@sh tests/need.sh /usr/sbin/nginx nginx
	@sh tests/need.sh /usr/sbin/haproxy haproxy
	@sh tests/need.sh java default-jdk-headless
	@sh tests/need.sh javac default-jdk-headless
	@sh tests/need.sh chromium chromium
	@sh tests/need.sh redis-server redis-server
	@sh tests/need.sh /usr/sbin/mariadbd mariadb-server-core
	@sh tests/need.sh '/usr/lib/postgresql/*/bin/initdb' postgresql
	@sh tests/need.sh softhsm2-util softhsm2
	@sh tests/need.sh /usr/lib/python3/dist-packages/cryptography python3-cryptography
	@sh tests/need.sh my_print_defaults mariadb-client-core
	@sh tests/need.sh /usr/lib/dovecot/imap dovecot-imapd
	@sh tests/need.sh /usr/lib/dovecot/pop3 dovecot-pop3d

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python setup.py pyproject.toml greentls/openssl/_pump.c
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.installed-test: $(VENV)/bin/python setup.py pyproject.toml greentls/openssl/_pump.c
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-bench: $(VENV)/bin/python setup.py pyproject.toml greentls/openssl/_pump.c
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test,bench]'
	@touch $@ $(VENV)/.installed $(VENV)/.installed-test

$(VENV)/.installed-docs: $(VENV)/bin/python setup.py pyproject.toml greentls/openssl/_pump.c
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[docs]'
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-lint: $(VENV)/bin/python setup.py pyproject.toml greentls/openssl/_pump.c
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test,lint]'
	@touch $@ $(VENV)/.installed $(VENV)/.installed-test

clean:  ## remove what make made
	rm -rf $(VENV) .venv-* build dist *.egg-info docs/_build
