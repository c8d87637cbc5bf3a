#!/bin/bash
# Runs every fuzz target for some time, from the committed corpus.
#   fuzz.sh [SECONDS [TARGET...]]
# What is new is kept in the cache folder; what breaks a target lands in fuzz/artifacts: add it to fuzz/corpus with the fix.
# Needs a C++ compiler. Works on the pinned stable toolchain: coverage without sanitizers needs no nightly.
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:-60}
shift || true
cache=${IMAGECACHE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/imagecache}
version=0.13.2
tools=$cache/cargo-fuzz-$version
if [ ! -x "$tools/bin/cargo-fuzz" ]; then
	env -u RUSTFLAGS cargo install cargo-fuzz --version "=$version" --locked --root "$tools"
fi
export PATH=$tools/bin:$PATH RUSTC_BOOTSTRAP=1
# libFuzzer is C++ and links as usual, not statically.
unset RUSTFLAGS
targets=("$@")
if [ $# = 0 ]; then
	for file in fuzz/fuzz_targets/*.rs; do
		targets+=("$(basename "$file" .rs)")
	done
fi
cargo fuzz build --sanitizer none
for target in "${targets[@]}"; do
	found=$cache/fuzz-corpus/$target
	mkdir -p "$found"
	echo "=== fuzz $target, $time s"
	cargo fuzz run --sanitizer none "$target" "$found" "fuzz/corpus/$target" -- \
		-max_total_time="$time" -max_len=16384 -timeout=10 -rss_limit_mb=1024 -print_final_stats=1
done
echo "${#targets[@]} passed, 0 failed"
