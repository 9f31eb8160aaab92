.DEFAULT_GOAL := help
.PHONY: help build run demo test chaos limits bench lint fuzz services deploy-check

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

bench: services ## what the limits on what is sent cost a job
	cargo bench --profile chaos --locked --bench limits

lint: ## formatting, clippy and documentation; warnings are errors
	cargo fmt --check
	cargo clippy --all-targets --all-features --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --locked --document-private-items

fuzz: ## coverage-guided fuzzing, a minute a target; installs cargo-fuzz where it is missing
	@tests/fuzz/run.sh

deploy-check: ## checks everything under deploy; installs its tools under target
	@tests/deploy/run.sh

services: ## installs RabbitMQ and Redis where they are missing
	@tests/support/install-services.sh
