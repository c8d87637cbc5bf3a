#!/bin/bash
# image.sh BINARY NAME: build the container image from the Dockerfile, without a daemon, as target/image/imagecache.tar.
set -euo pipefail
binary=$1 name=$2
cd "$(dirname "$0")/../.."
out=target/image
mkdir -p "$out/context"
archive=$out/imagecache.tar
if [ "$archive" -nt "$binary" ] && [ "$archive" -nt Dockerfile ] && [ "$(cat "$out/name" 2>/dev/null)" = "$name" ]; then
	exit 0
fi
certificates=/etc/ssl/certs/ca-certificates.crt
[ -f "$certificates" ] || { echo "image.sh: $certificates is missing: install the package ca-certificates" >&2; exit 1; }
cp "$certificates" "$out/context/ca-certificates.crt"
strip -o "$out/context/imagecache" "$binary"
chmod 755 "$out/context/imagecache"
storage=$(mktemp -d)
trap 'rm -rf "$storage"' EXIT
build=(buildah --root "$storage/root" --runroot "$storage/run" --storage-driver vfs)
"${build[@]}" bud --isolation chroot --quiet --tag "$name" --file Dockerfile "$out/context" >/dev/null
rm -f "$archive"
"${build[@]}" push --quiet "$name" "docker-archive:$archive:$name"
echo "$name" >"$out/name"
echo "$archive holds $name ($(du -h "$archive" | cut -f1))"
