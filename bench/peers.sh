#!/bin/sh
# Build the tools that `make bench-*` compares with, once, at pinned versions, from the Go module proxy.
# Prints their folder on the last line.
#
#   bench/peers.sh             crane, regctl, oras, containerd, ctr, and skopeo's library (bench/peers/main.go)
#   bench/peers.sh --where     only print the folder; fails if nothing was built yet
#   GOFLAGS=-p=2 bench/peers.sh    leave cores to others
#
# The folder is named after the hash of this file and the sources beside it, under
# ${IMAGECACHE_CACHE:-${XDG_CACHE_HOME:-~/.cache}/imagecache}. A tool that cannot be built (a proxy may not have it)
# is left out and named in `left-out` there; delete the folder to try again.
set -eu

cd "$(dirname "$0")"
cache=${IMAGECACHE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/imagecache}
folder=$cache/peers-$({
	uname -m
	cat peers.sh peers/go.mod peers/go.sum peers/main.go
} | sha256sum | cut -c1-12)

case ${1-} in
'') ;;
--where)
	[ -d "$folder" ] || exit 1
	echo "$folder"
	exit 0
	;;
*)
	sed -n '2,11s/^# \{0,1\}//p' "$0"
	exit 2
	;;
esac

scratch=
# tool NAME COMMAND...: the command leaves the binary NAME in $scratch.
tool() {
	name=$1
	shift
	echo "building $name ..." >&2
	if ! "$@" >"$scratch/log" 2>&1; then
		reason=$(grep -v '^go: downloading' "$scratch/log" | tail -n 2 | tr -s '\n\t ' ' ')
		echo "$name: left out: $reason" >&2
		echo "$name: $reason" >>"$scratch/left-out"
	fi
	rm -f "$scratch/log"
}

if [ ! -d "$folder" ]; then
	if ! command -v go >/dev/null; then
		echo "peers.sh: Go is needed to build the peers and is not there: install Go 1.25 or newer, or use --no-peers" >&2
		exit 1
	fi
	mkdir -p "$cache"
	# One build at a time; the lock ends with the process that holds it.
	exec 9>"$cache/.lock-peers"
	flock 9
fi
if [ ! -d "$folder" ]; then
	rm -rf "$cache"/.peers.*
	scratch=$(mktemp -d "$cache/.peers.XXXXXX")
	chmod 755 "$scratch"
	trap 'rm -rf "$scratch"' EXIT
	trap 'exit 1' INT TERM HUP
	export GOBIN="$scratch" CGO_ENABLED=0 GOTOOLCHAIN=local
	set -- go install -trimpath -ldflags '-s -w'
	tool crane "$@" github.com/google/go-containerregistry/cmd/crane@v0.22.1
	tool regctl "$@" github.com/regclient/regclient/cmd/regctl@v0.11.7
	tool oras "$@" oras.land/oras/cmd/oras@v1.3.3
	tool containerd "$@" github.com/containerd/containerd/v2/cmd/containerd@v2.4.2
	tool ctr "$@" github.com/containerd/containerd/v2/cmd/ctr@v2.4.2
	# Pure Go: signatures are not checked in these runs, and no storage driver is used.
	pure='containers_image_openpgp exclude_graphdriver_btrfs exclude_graphdriver_devicemapper'
	tool image-copy go build -C peers -trimpath -tags "$pure" -ldflags '-s -w' -o "$scratch/image-copy" .
	trap - EXIT
	mv -T "$scratch" "$folder"
fi
echo "$folder"
