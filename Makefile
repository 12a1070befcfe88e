# `make run` builds everything and starts a broker; `make test` proves it. `make help` lists the rest.

CARGO     ?= cargo
HOTBAY    := target/release/hotbay
CONFIG    ?= examples/hotbay.toml
RUN_ARGS  ?=
BENCH_ARGS ?=
WEB_BUILT := host/web/dist/.built

.DEFAULT_GOAL := help
.PHONY: help run build toolchain plugins test check unit integration needs web soak bench bench-peers bench-tax bench-inside bench-plugins bench-yjs clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

run: build ## build everything and start a broker on 127.0.0.1:3000, with its data in ./data
	@$(HOTBAY) serve --config $(CONFIG) $(RUN_ARGS)

build: plugins web ## build the broker, the plugins and the demo pages
	$(CARGO) build --release --locked --bin hotbay

toolchain: # the target plugins are built for; rust-toolchain.toml names it, but not every installation adds it by itself
	@command -v $(CARGO) >/dev/null || { echo "cargo is missing: install Rust from https://rustup.rs" >&2; exit 1; }
	@rustc --print target-libdir --target wasm32-wasip2 2>/dev/null | xargs test -d 2>/dev/null \
	  || rustup target add wasm32-wasip2

plugins: toolchain ## build the plugins
	cd plugins && $(CARGO) build --release --locked --target wasm32-wasip2

web: ## bundle the scripts of the demo pages; without npm the broker is built all the same, and the pages say what is missing
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory $(WEB_BUILT); \
	  else echo "npm is missing, so the demo pages get no scripts: install Node.js with npm (Debian: apt-get install nodejs npm)" >&2; fi

$(WEB_BUILT): host/web/package-lock.json $(wildcard host/web/src/* host/web/*.json host/web/*.mjs)
	cd host/web && npm ci --no-audit --no-fund --loglevel=error && npm run --silent build
	touch $@

test: check unit integration ## install what tests need, then run all of them; fails on any failure

check: plugins ## formatting, lints, and that the example configuration is valid
	$(CARGO) fmt --check
	cd plugins && $(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	cd plugins && $(CARGO) clippy --locked --all-targets -- -D warnings

unit: plugins ## tests beside the code, of the host and of the plugins
	$(CARGO) test --locked --lib --bins --test sim --test tidy
	cd plugins && $(CARGO) test --locked

integration: plugins needs web ## tests against real brokers: contract, faults, real clients, browser
	$(CARGO) test --locked --test contract --test it --test faults
	node --test tests/browser/*.test.js # with target/debug/hotbay, which cargo test has built

needs: # Node.js, npm packages, Chromium, PostgreSQL, minisign
	tests/needs.sh

soak: plugins ## the crash test with 200 kills, the simulator with many more seeds, the fault tests again and again
	HOTBAY_CRASH_ROUNDS=200 $(CARGO) test --locked --test faults crash:: -- --nocapture
	HOTBAY_SIM_SEEDS=200000 $(CARGO) test --locked --test sim the_laws -- --nocapture
	for round in $$(seq 20); do $(CARGO) test --locked --test faults -- store:: plugin:: || exit 1; done

bench: plugins ## measure what must hold, on this machine
	$(CARGO) bench --locked --bench must_hold

bench-peers: plugins ## measure Hotbay beside other servers, with `hotbay bench`; needs Node.js and two cores
	cd tests/bench/peers && npm ci --no-audit --no-fund --loglevel=error
	$(CARGO) bench --locked --bench peers -- $(BENCH_ARGS)

bench-tax: plugins ## measure what WebAssembly costs: the relay plugin beside the same relay as native code
	$(CARGO) build --release --locked --bin hotbay --features native-relay
	mkdir -p target/bench && mv $(HOTBAY) target/bench/hotbay-native
	$(CARGO) bench --locked --bench peers -- --peers=hotbay,hotbay-other --broker=target/bench/hotbay-native fan-out rooms $(BENCH_ARGS)

bench-yjs: plugins ## measure the Yjs relay beside Hocuspocus and y-websocket's server; needs Node.js and two cores
	cd tests/bench/yjs && npm ci --no-audit --no-fund --loglevel=error
	$(CARGO) bench --locked --bench yjs -- $(BENCH_ARGS)

bench-plugins: plugins ## measure swaps, shadows, canaries and hostile uploads: what plugins in production must hold
	$(CARGO) bench --locked --bench plugins -- $(BENCH_ARGS)

bench-inside: plugins ## measure the parts of a message's way, within one process
	$(CARGO) bench --locked --bench inside -- $(BENCH_ARGS)

clean: ## remove everything that was built, but not ./data
	$(CARGO) clean
	rm -rf tests/*/node_modules tests/bench/*/node_modules host/web/node_modules host/web/dist/*.js host/web/dist/.built
