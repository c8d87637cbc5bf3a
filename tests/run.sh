#!/bin/bash
# The body of `make test`: every part in turn, stops at the first that fails, and counts at the end.
#   run.sh            everything
#   run.sh PART...    only these: cargo api cluster node snapshots demo fuzz
# CARGO_FLAGS and RUSTFLAGS come from the Makefile, so that nothing is built twice.
set -euo pipefail
cd "$(dirname "$0")/.."
parts=("$@")
[ $# -gt 0 ] || parts=(cargo api cluster node snapshots demo fuzz)
read -r -a flags <<<"${CARGO_FLAGS:-}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
total_passed=0

# count: adds what the part's own closing lines say: cargo's `N passed`, or `N passed, N failed`.
count() {
	local n
	n=$(grep -oE '(^|[. ])[0-9]+ passed' "$log" | grep -oE '[0-9]+' | awk '{sum += $1} END {print sum + 0}')
	total_passed=$((total_passed + n))
}

# part NAME COMMAND...
part() {
	local start=$SECONDS
	echo "=== $1"
	if ! "${@:2}" 2>&1 | tee "$log"; then
		echo "$total_passed passed, 1 failed"
		echo "make test: the part '$1' failed; run it alone with: make test-$1" >&2
		exit 1
	fi
	count
	echo "=== $1 held, $((SECONDS - start)) s"
}

# what a demo could leave on the machine
left() {
	ip -brief link | awk '{print $1}' | sort
	ip route | sort
	awk '{print $2}' /proc/mounts | sort
	find /tmp -maxdepth 1 -name 'imagecache-demo*'
	pgrep -fa 'imagecache-demo' | grep -v "$$" || true
}

demo() {
	local before
	before=$(left)
	for run in first second; do
		tests/demo/demo.sh --down || return 1
		diff <(echo "$before") <(left) || { echo "the $run demo left something behind"; return 1; }
	done
	echo "2 passed, 0 failed"
}

for name in "${parts[@]}"; do
	case $name in
	cargo) part cargo cargo test "${flags[@]}" --quiet ;;
	api) part api cargo test "${flags[@]}" --quiet --test api ;;
	cluster) part cluster tests/cluster/test.sh ;;
	# Most of the time these wait for something.
	node) part node cargo test "${flags[@]}" --quiet --test node -- --test-threads=8 ;;
	# One after the other: the driver's faults are for all.
	snapshots) part snapshots cargo test "${flags[@]}" --quiet --test csi -- --test-threads=1 ;;
	demo) part demo demo ;;
	# Each target for a little; `make fuzz` takes a minute.
	fuzz) part fuzz tests/fuzz.sh "${FUZZ_SECONDS:-20}" ;;
	*)
		echo "run.sh: no such part: $name" >&2
		exit 2
		;;
	esac
done
echo "$total_passed passed, 0 failed"
