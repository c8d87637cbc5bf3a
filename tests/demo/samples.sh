#!/bin/bash
# samples.sh OPEN PRIVATE USER:PASSWORD: make small images that share layers and push them to two registries.
#   OPEN/shop/{web,api,worker}:1 stand on one base layer; PRIVATE/team/report:1 too, behind a password.
set -euo pipefail
open=$1 private=$2 account=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
build=(buildah --root "$work/root" --runroot "$work/run" --storage-driver vfs)

# commit NAME FROM FOLDER: an image with one layer more than FROM.
commit() {
	local container
	container=$("${build[@]}" from --pull-never "$2")
	"${build[@]}" add --quiet "$container" "$3" / >/dev/null
	"${build[@]}" config --cmd '["/bin/sh"]' --env PATH=/bin "$container"
	"${build[@]}" commit --quiet "$container" "$1" >/dev/null
	"${build[@]}" rm "$container" >/dev/null
}

# filler FILE MIB: bytes that do not compress.
filler() {
	mkdir -p "$(dirname "$1")"
	head -c "$2"M /dev/urandom >"$1"
}

mkdir -p "$work/base/bin"
cp /bin/busybox "$work/base/bin/busybox"
for applet in sh echo cat ls sleep hostname; do ln -s busybox "$work/base/bin/$applet"; done
filler "$work/base/usr/share/base" 24
commit localhost/base scratch "$work/base"
for name in web:6 api:4 worker:8 report:3; do
	filler "$work/${name%:*}/srv/${name%:*}" "${name#*:}"
	commit "localhost/${name%:*}" localhost/base "$work/${name%:*}"
done
for name in web api worker; do
	"${build[@]}" push --quiet --tls-verify=false "localhost/$name" "docker://$open/shop/$name:1"
done
"${build[@]}" push --quiet --tls-verify=false --creds "$account" localhost/report "docker://$private/team/report:1"
