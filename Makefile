# Each target does all its own set-up; see CONTRIBUTING.md.

CARGO ?= cargo

PYTHON ?= python3

.PHONY: demo test lint unit models doc python python-lint compat bench bench-rust bench-python bench-payloads stress sanitize \
	sanitize-rust sanitize-python fuzz fuzz-frames ctrl-c

## The main job: downloads 80 pictures from a server on this machine, one after
## another and with a pool of 20; counts primes one after another, with threads and
## with processes; and runs 200 tasks of which five crash.
demo:
	$(CARGO) run --release --quiet -p examples --bin download -- --demo
	$(CARGO) run --release --quiet -p examples --bin processes

## Everything that must hold.
test: lint doc unit models python

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

doc:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --quiet

# Default members: the engine and the examples, with unit, integration, property
# and doc tests.
unit:
	$(CARGO) test

# The protocols under loom. A build of its own, as the models replace the atomics.
models:
	RUSTFLAGS="--cfg loom_models" $(CARGO) test --release -p concurrent-futures --lib --target-dir target/loom

## The Python package: lints, then tests with each CPython that python/pythons.py finds.
python: python-lint
	set -e; for version in $$($(PYTHON) python/pythons.py); do \
		$(MAKE) --no-print-directory python-$$version; \
	done

# With the newest of them.
python-lint:
	set -e; for version in $$($(PYTHON) python/pythons.py); do :; done; \
		$(MAKE) --no-print-directory python-lint-$$version

python-lint-%: .venv/%/tools
	.venv/$*/bin/ruff check
	.venv/$*/bin/ruff format --check
	.venv/$*/bin/mypy

## For example `make python-3.13`.
python-3.%: .venv/3.%/package
	.venv/3.$*/bin/stubtest concurrent_futures._engine
	.venv/3.$*/bin/python -m pytest
	.venv/3.$*/bin/python python/fuzz/compare.py --kind thread --seed 1 --count 300
	.venv/3.$*/bin/python python/fuzz/compare.py --kind process --seed 1 --count 100
	.venv/3.$*/bin/python python/cpython/run.py

## Runs real packages that use executors with this one installed, with the newest CPython; see
## COMPATIBILITY.md. Needs a package index.
compat:
	set -e; for version in $$($(PYTHON) python/pythons.py); do :; done; \
		$(MAKE) --no-print-directory compat-$$version

compat-%:
	test -x .venv/compat-$*/bin/python || \
		"$$($(PYTHON) python/pythons.py $*)" -m venv --clear .venv/compat-$*
	.venv/compat-$*/bin/python python/compat/run.py

## Compares 10,000 random programs on the standard library and on the package; about an hour.
## FUZZ_SEED=… tries others.
FUZZ_SEED ?= 1
fuzz: fuzz-3.13
fuzz-%: .venv/%/package
	.venv/$*/bin/python python/fuzz/compare.py --kind thread --seed $(FUZZ_SEED) --count 7000
	.venv/$*/bin/python python/fuzz/compare.py --kind process --seed $(FUZZ_SEED) --count 3000

# Environments, with the test tools, and with the package as `pip install .` builds it.
.PRECIOUS: .venv/%/tools .venv/%/package

PIP_INSTALL = -m pip install --quiet --disable-pip-version-check

.venv/%/tools: python/requirements-test.txt
	"$$($(PYTHON) python/pythons.py $*)" -m venv --clear .venv/$*
	.venv/$*/bin/python $(PIP_INSTALL) -r python/requirements-test.txt
	touch $@

.venv/%/package: .venv/%/tools pyproject.toml Cargo.toml Cargo.lock python/Cargo.toml \
		$(shell find crates python/src python/concurrent_futures -name '*.rs' -o -name '*.py' -o -name '*.pyi')
	.venv/$*/bin/python $(PIP_INSTALL) .
	touch $@

## Writes BENCHMARKS.md; takes some minutes, and wants a machine with nothing else to do.
bench: bench-rust bench-python

bench-rust:
	$(CARGO) run --release -p benchmarks

bench-python:
	set -e; for version in $$($(PYTHON) python/pythons.py); do :; done; \
		$(MAKE) --no-print-directory bench-python-$$version

bench-python-%: .venv/%/package
	.venv/$*/bin/python $(PIP_INSTALL) -r python/benches/requirements.txt
	.venv/$*/bin/python python/benches/run.py

## Ctrl-C at random moments of thousands of programs, with the newest CPython; takes an hour or so.
ctrl-c:
	set -e; for version in $$($(PYTHON) python/pythons.py); do :; done; \
		$(MAKE) --no-print-directory ctrl-c-$$version

ctrl-c-%: .venv/%/package
	.venv/$*/bin/python python/tests/ctrl_c.py --runs 2000 threads
	.venv/$*/bin/python python/tests/ctrl_c.py --runs 1000 fork spawn forkserver

## Objects of all sizes and kinds, to workers and back: against the standard library, in some
## minutes. `PAYLOADS=--complete` measures all sizes.
bench-payloads:
	set -e; for version in $$($(PYTHON) python/pythons.py); do :; done; \
		$(MAKE) --no-print-directory bench-payloads-$$version

bench-payloads-%: .venv/%/package
	.venv/$*/bin/python $(PIP_INSTALL) -r python/benches/requirements.txt
	.venv/$*/bin/python python/benches/payloads.py $(PAYLOADS)

## Millions of tasks.
stress:
	CONCURRENT_FUTURES_STRESS=120 $(CARGO) test --release -p concurrent-futures --test stress -- --nocapture

## The same under the address sanitizer, with leak detection; then the Python module under it, and with
## CPython's checks of its memory. The sanitizer is part of the compiler, which a stable one wants
## to be told that this is known (RUSTC_BOOTSTRAP).
sanitize: sanitize-rust sanitize-python

HOST = $$(rustc -vV | sed -n 's/host: //p')

sanitize-rust:
	CONCURRENT_FUTURES_STRESS=60 RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=address" $(CARGO) test \
		-p concurrent-futures --tests --target $(HOST) --target-dir target/sanitize

# With the newest of the interpreters.
sanitize-python:
	set -e; for version in $$($(PYTHON) python/pythons.py); do :; done; \
		$(MAKE) --no-print-directory sanitize-python-$$version

# Frames are as large as in a release: there are tests of deep stacks.
sanitize-python-%: .venv/%/package
	RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=address" CARGO_PROFILE_DEV_OPT_LEVEL=1 \
		PYO3_PYTHON="$(CURDIR)/.venv/$*/bin/python" $(CARGO) build \
		-p concurrent-futures-python --target $(HOST) --target-dir target/sanitize-python
	.venv/$*/bin/python python/sanitize.py target/sanitize-python/$(HOST)/debug/lib_engine.so

## Arbitrary bytes as the frames of process pools, by libFuzzer, for a minute; a short run with bytes by
## chance is one of the unit tests.
fuzz-frames:
	CARGO="$(CARGO)" fuzz/run frames 60
