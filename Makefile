.DEFAULT_GOAL := help
.PHONY: help build run demo test chaos limits bench bench-limits micro profile lint fuzz services deploy-check examples-check docs-check page-check

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## release build
	cargo build --release --locked
	tests/support/no-crash-points.sh $${CARGO_TARGET_DIR:-target}/release/esms-otp-worker

run: ## the worker against the real endpoint, with the settings in the environment
	cargo run --release --locked --bin esms-otp-worker -- run

# `make demo KEEP=1` leaves it running until it is interrupted; make puts KEEP in the environment.
demo: ## the worker against a private RabbitMQ and a pretended eSMS
	@tests/demo/run.sh

test: services ## all tests, against a private RabbitMQ and Redis
	cargo test --locked --features demo

# make chaos SEED=1 JOBS=20000 WORKERS=3 LEDGER=redis|memory ON_AMBIGUOUS=resend|give-up ON_ERROR=send|hold LIMITS=on|off
# SECONDS=300:
# each has a default, and make puts what is given in the environment. No job is published after SECONDS.
chaos: services ## everything that can break, broken at once while jobs flow; then an audit of every job
	cargo test --profile chaos --locked --test chaos -- --campaign

# As `make test` runs them, but for the number of jobs; `make limits LIMITS_JOBS=100000` for fewer.
limits: export LIMITS_JOBS ?= 1000000
limits: services ## what a million queued jobs and a blocked broker cost the worker
	cargo test --locked --test it -- --nocapture --test-threads=1 limits::

# make bench ROUNDS=3 JOBS=40000 CELLS=all|128/0,512/50 CONTENDERS=all|bare,bare-hyper,worker,worker-redis,node,faststream
# PARTS=all|throughput,latency,start,many,memory,backlog,fleet BACKLOG=200000:
# each has a default. A cell is the prefetch and the milliseconds that the endpoint takes. JOBS are those of a run with an endpoint that
# takes no time; a slow contender gets fewer. BACKLOG are those of the long queue (at most 1000000).
# WORKER=path, BARE=path, BARE_HYPER=path and SANDBOX=path measure other builds of the programs.
bench: build services ## the worker beside others that do the same work: what a job costs, and how fast it is done
	cargo build --release --locked --manifest-path benches/bare/Cargo.toml --target-dir $${CARGO_TARGET_DIR:-target}/bare
	@benches/peers/install.sh
	cargo bench --profile chaos --locked --bench side_by_side

# WORKER=path and so on, JOBS, CELLS and CONTENDERS (the first of each counts) as for `make bench`.
profile: export CONTENDERS ?= worker
profile: export WORKER ?= $(or $(CARGO_TARGET_DIR),target)/profiling/esms-otp-worker
profile: export SANDBOX ?= $(or $(CARGO_TARGET_DIR),target)/profiling/esms-sandbox
profile: services ## where the worker's processor time goes, by perf
	RUSTFLAGS="$$RUSTFLAGS -C force-frame-pointers=yes" cargo build --profile profiling --locked --bin esms-otp-worker --bin esms-sandbox
	PARTS=profile cargo bench --profile chaos --locked --bench side_by_side

micro: ## what the steps of a job cost by themselves
	cargo bench --profile chaos --locked --bench micro

bench-limits: services ## what the limits on what is sent cost a job
	cargo bench --profile chaos --locked --bench limits

lint: ## formatting, clippy and documentation; warnings are errors
	cargo fmt --check
	cargo fmt --check --manifest-path benches/bare/Cargo.toml
	cargo clippy --all-targets --all-features --locked -- -D warnings
	cargo clippy --all-targets --locked --manifest-path benches/bare/Cargo.toml --target-dir $${CARGO_TARGET_DIR:-target}/bare -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --locked --document-private-items

fuzz: ## coverage-guided fuzzing, a minute a target; installs cargo-fuzz where it is missing
	@tests/fuzz/run.sh

deploy-check: ## checks everything under deploy; installs its tools under target
	@tests/deploy/run.sh

examples-check: services ## runs the examples of each language that is here, or that apt, pip and npm bring
	@tests/examples/run.sh

docs-check: ## the schemas by the official validators, and every command of the documents; installs its tools under target
	@tests/documents/run.sh

page-check: ## the sandbox's page in a real Chromium; apt brings it where it is missing
	@tests/page/run.sh

services: ## installs RabbitMQ and Redis where they are missing
	@tests/support/install-services.sh
