# What the demo's scripts share. Sourced.
# shellcheck shell=bash
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
demo=${IMAGECACHE_DEMO:-${TMPDIR:-/tmp}/imagecache-demo}
bin=$("$root/tests/cluster/build.sh" | tail -n 1)
cluster() { "$bin/cluster" "$@"; }
kubectl() { "$bin/cluster" kubectl "$demo/cluster" "$@"; }

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
fail() { printf 'demo: %s\n' "$*" >&2; exit 1; }

# wait_for SECONDS WHAT COMMAND...: until the command succeeds.
wait_for() {
	local limit=$1 what=$2 start=$SECONDS
	shift 2
	until "$@" >/dev/null 2>&1; do
		[ $((SECONDS - start)) -lt "$limit" ] || fail "waited $limit s for $what"
		sleep 0.2
	done
}

# stop_registry NAME: end a registry that the demo started, by the pid it noted.
stop_registry() {
	local pid
	pid=$(cat "$demo/$1.pid" 2>/dev/null) || return 0
	if [ "$(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null)" = "docker-registry serve $demo/$1.yml " ]; then
		kill "$pid"
		while [ -d "/proc/$pid" ]; do sleep 0.05; done
	fi
	rm -f "$demo/$1.pid"
}
