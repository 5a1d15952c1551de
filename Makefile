# Two commands: `make demo` shows the project at work, `make test` tests all of it. Both first install what is
# missing (scripts/setup.sh says what).

.PHONY: help demo test build setup lint bench clean

help:
	@echo 'make demo   install what is missing, build, and show four MPI engines answer psum'
	@echo 'make test   install what is missing and run every test'
	@echo 'make build  build controller, engine, its Python plugin, client and cluster into target/release'
	@echo 'make lint   formatting, clippy, and the rules of ARCHITECTURE.md'
	@echo 'make bench  measure against a bare libzmq relay and a bare MPI_Allreduce'

setup:
	@scripts/setup.sh

build: setup
	cargo build --release --bins
	cargo build --release --package engine-python

demo: setup
	@scripts/demo.sh

test: setup
	cargo xtask ci

lint: setup
	cargo xtask lint

bench: setup
	cargo xtask bench

clean:
	cargo clean
