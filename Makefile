# `make help` lists what is here.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

# One static build serves tests, demo and image: the image is made from scratch and has no libc.
HOST := $(shell rustc -vV | sed -n 's/^host: //p')
export RUSTFLAGS := -C target-feature=+crt-static
CARGO_FLAGS := --locked --target $(HOST)
PROFILE ?= dev
BINARY = target/$(HOST)/$(if $(filter dev,$(PROFILE)),debug,$(PROFILE))/imagecache
IMAGE ?= localhost/imagecache:dev

.PHONY: help
help: ## Show this list.
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

.PHONY: demo
demo: root packages cluster image ## Bring up a cluster, pull a cache, stop the registries, start a pod from the mirror. DOWN=1 removes it at the end.
	tests/demo/demo.sh $(if $(DOWN),--down)

.PHONY: demo-down
demo-down: ## Remove what `make demo` left running.
	tests/demo/down.sh

.PHONY: test
test: root packages lint cluster image ## Everything: lints, unit tests, tests on real parts, the demo.
	CARGO_FLAGS="$(CARGO_FLAGS)" tests/run.sh

.PHONY: test-cargo test-api test-cluster test-node test-demo test-fuzz
test-cargo: ## Unit tests and tests against scripted servers: no cluster, no root.
test-api: cluster ## Tests on a real API server: no root.
test-cluster: packages cluster ## Tests of the test cluster itself.
test-node: root packages cluster image ## Tests on a real node.
test-demo: root packages cluster image ## The demo, twice.
test-fuzz: packages ## Every fuzz target for 20 s each, FUZZ_SECONDS for another time.
test-cargo test-api test-cluster test-node test-demo test-fuzz:
	CARGO_FLAGS="$(CARGO_FLAGS)" tests/run.sh $(@:test-%=%)

.PHONY: test-csi
test-csi: root packages ## Tests of the test cluster's CSI driver and snapshots. Builds the sidecars the first time: minutes.
	tests/cluster/test.sh csi

.PHONY: test-snapshots
test-snapshots: root packages image ## Snapshots on a real node with that driver: taken, lost, restored, verified, served.
	CARGO_FLAGS="$(CARGO_FLAGS)" tests/run.sh snapshots

# Long runs of what test-cargo does in seconds. 600 seconds for each of the two storms, unless SECONDS_EACH says otherwise.
KILLS ?= 100
SECONDS_EACH ?= 600
LONG_TEST = cargo test $(CARGO_FLAGS) --test

.PHONY: test-kills
test-kills: ## A pull killed at KILLS=100 random points, resumed and verified; and killed at each of its changes.
	IMAGECACHE_KILLS=$(KILLS) $(LONG_TEST) resume -- --nocapture
	$(LONG_TEST) kills -- --nocapture may_die

.PHONY: test-faults
test-faults: root ## Disks that are full or fail, at every change of a pull, and on real file systems.
	IMAGECACHE_FAULTS=all unshare --mount --propagation private $(LONG_TEST) faults -- --nocapture --include-ignored

.PHONY: test-soak
test-soak: ## Pulls, gc, rm, a mirror and a reader with random kills, 10 minutes, then the same without locks.
	IMAGECACHE_STORM_SECONDS=$(SECONDS_EACH) $(LONG_TEST) kills -- --nocapture --test-threads=1 pulls_gc_rm the_same_where

.PHONY: test-collect
test-collect: ## gc with lists of a cluster against pulls of old layers: each killed at each change, then both at random, 10 minutes.
	IMAGECACHE_STORM_SECONDS=$(SECONDS_EACH) $(LONG_TEST) collect -- --nocapture --test-threads=1

.PHONY: test-clock
test-clock: packages cluster ## The controller under a clock that jumps (libfaketime), on a real API server.
	RUSTFLAGS= cargo build --locked --target-dir target/dynamic
	IMAGECACHE_DYNAMIC=$(CURDIR)/target/dynamic/debug/imagecache $(LONG_TEST) api -- --nocapture clock::

.PHONY: test-together
test-together: ## Several pulls at once on one store: bytes from upstream against unique ones.
	$(LONG_TEST) together -- --nocapture

# How long each target of make fuzz runs.
SECONDS = 60

.PHONY: fuzz
fuzz: ## Every fuzz target for SECONDS=60 with the corpus in fuzz/corpus; cargo test replays that corpus.
	tests/fuzz.sh $(SECONDS)

.PHONY: lint
lint: ## Formatting, clippy, documentation and shell scripts.
	cargo fmt --check
	cargo clippy $(CARGO_FLAGS) --all-targets --test api --test node --test csi -- -D warnings
	@if command -v shellcheck >/dev/null; then shellcheck tests/*.sh tests/*/*.sh bench/*.sh; fi
	RUSTDOCFLAGS="-D warnings" cargo doc $(CARGO_FLAGS) --no-deps --quiet

.PHONY: build
build: ## The static binary. PROFILE=release for the one to ship.
	cargo build $(CARGO_FLAGS) --profile $(PROFILE)

.PHONY: image
image: build ## The container image as target/image/imagecache.tar, built without a daemon.
	tests/demo/image.sh $(BINARY) $(IMAGE)

.PHONY: crd
crd: build ## Print the CRD into crds/ after a change of the types.
	$(BINARY) crd > crds/imagecaches.yaml

.PHONY: root
root:
	@[ "$$(id -u)" = 0 ] || { echo "a node with containerd needs root: run this as root, for example with sudo" >&2; exit 1; }

.PHONY: cluster
cluster: ## Build the test cluster's programs, once, into the cache folder.
	tests/cluster/build.sh

.PHONY: packages
packages: ## Install the Debian packages that tests and demo need (as root), or name them.
	tests/cluster/packages.sh

RELEASE = target/$(HOST)/release
# What the benches are told besides, for example BENCH="--corpus small --rounds 2" or BENCH=--publish.
BENCH ?=
RUN = bench/run.py $(@:bench-%=%) --ours $(RELEASE)/imagecache --parts $(RELEASE)/examples/parts --far-proxy $(RELEASE)/examples/far $(BENCH)

.PHONY: bench bench-build bench-pull bench-far bench-overlap bench-noop bench-rss bench-verify
bench: bench-pull bench-far bench-overlap bench-noop bench-rss bench-verify ## Everything measured; BENCH=--publish writes docs/performance.md.

bench-build:
	cargo build $(CARGO_FLAGS) --release --bin imagecache --example far --example parts

bench-pull: bench-build ## A near registry over HTTP and TLS, next to skopeo, crane, regctl, containerd: target/bench/pull.json.
	$(RUN)

bench-far: bench-build ## The same, 40 ms away with 40 MB/s per connection: target/bench/far.json.
	$(RUN)

bench-overlap: bench-build ## Four processes that pull overlapping images into one store: target/bench/overlap.json.
	$(RUN)

bench-noop: bench-build ## Pulls that have nothing to do, and their requests: target/bench/noop.json.
	$(RUN)

bench-rss: bench-build ## Peak memory of one layer of 10 GiB: target/bench/rss.json.
	$(RUN)

bench-verify: bench-build ## Every stored byte hashed again, from memory and from disk: target/bench/verify.json.
	$(RUN)
