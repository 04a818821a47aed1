# Each target does all its own set-up; see CONTRIBUTING.md.

CARGO ?= cargo

.PHONY: demo test lint unit models doc bench stress sanitize

## The main job: downloads 80 pictures from a server on this machine, one after
## another and with a pool of 20.
demo:
	$(CARGO) run --release --quiet -p examples --bin download -- --demo

## Everything that must hold.
test: lint doc unit models

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

## Writes BENCHMARKS.md; takes some minutes, and wants a machine with nothing else to do.
bench:
	$(CARGO) run --release -p benchmarks

## Millions of tasks.
stress:
	CONCURRENT_FUTURES_STRESS=120 $(CARGO) test --release -p concurrent-futures --test stress -- --nocapture

## The same under the address sanitizer, with leak detection; needs a nightly toolchain.
sanitize:
	CONCURRENT_FUTURES_STRESS=60 RUSTFLAGS="-Zsanitizer=address" $(CARGO) +nightly test \
		-p concurrent-futures --tests --target $$(rustc -vV | sed -n 's/host: //p') \
		--target-dir target/sanitize
