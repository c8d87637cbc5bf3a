#!/bin/sh
# Build the test cluster's binaries and print the folder of `cluster` on the last line.
#
#   build.sh             everything (the first time takes minutes: it compiles Kubernetes)
#   build.sh --no-kube   only `cluster`, for use with KUBEBUILDER_ASSETS
#   build.sh --csi       everything, and what `cluster csi` and its tests take
#
# Each binary lives in a folder named after the hash of its sources, under
# ${IMAGECACHE_CACHE:-${XDG_CACHE_HOME:-~/.cache}/imagecache}, so a change of the
# supervisor leaves the big binary alone, and nothing is done twice.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
kube=yes csi=no
case ${1-} in
'') ;;
--no-kube) kube=no ;;
--csi) csi=yes ;;
*)
	sed -n '2,9s/^# \{0,1\}//p' "$0"
	exit 2
	;;
esac
cache=${IMAGECACHE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/imagecache}

# hash FILE... is the identity of a build from these files, on this architecture.
hash() {
	{
		uname -m
		cat "$@"
	} | sha256sum | cut -c1-12
}

cd "$here"
kube_folder=kube-$(hash kube/go.mod kube/go.sum kube/*.go)
dns_folder=coredns-$(hash dns/go.mod dns/go.sum dns/*.go)
cluster_folder=cluster-$(hash build.sh go.mod ./*.go config/* kube/go.* kube/*.go dns/go.* dns/*.go csi/*/*)

# The modules under csi: our driver, and others that are built as their authors
# wrote them, being tools of a module that only says which versions to take.
csi_modules='driver provisioner snapshotter sanity'
csi_folder() { echo "csi-$1-$(hash "csi/$1"/*)"; }

missing() {
	for folder in "$@"; do
		[ -d "$cache/$folder" ] || return 0
	done
	return 1
}

# build MODULE BINARY FOLDER LDFLAGS: build into a scratch folder and rename, so
# that an interrupted build never looks like a finished one. BINARY "tool" stands
# for all tools of the module, each under its own name.
build() {
	[ ! -d "$cache/$3" ] || return 0
	echo "building $3 ..." >&2
	scratch=$(mktemp -d "$cache/.build.XXXXXX")
	chmod 755 "$scratch"
	what=. out=$2
	[ "$2" != tool ] || what=tool out=
	(cd "$1" && CGO_ENABLED=0 go build -trimpath -ldflags "-s -w $4" -o "$scratch/$out" "$what") >&2
	if [ "$2" = kube ]; then
		for name in etcd kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl; do
			ln -s kube "$scratch/$name"
		done
	elif [ "$2" = cluster ]; then # which looks for the others right here
		ln -s "../$kube_folder" "$scratch/kube"
		ln -s "../$dns_folder" "$scratch/dns"
		ln -s kube/kubectl "$scratch/kubectl"
		for module in $csi_modules; do
			ln -s "../$(csi_folder "$module")" "$scratch/csi-$module"
		done
	elif [ "$1" = csi/snapshotter ]; then # whose API comes with its client
		client=$(cd "$1" && go list -m -f '{{.Dir}}' github.com/kubernetes-csi/external-snapshotter/client/v8)
		mkdir "$scratch/crds"
		install -m 644 "$client"/config/crd/snapshot.storage.k8s.io_*.yaml "$scratch/crds/"
	fi
	mv -T "$scratch" "$cache/$3"
}

wanted=$cluster_folder
[ $kube = no ] || wanted="$wanted $kube_folder $dns_folder"
if [ $csi = yes ]; then
	for module in $csi_modules; do
		wanted="$wanted $(csi_folder "$module")"
	done
fi
# shellcheck disable=SC2086 # folder names, without spaces
if missing $wanted; then
	if ! command -v go >/dev/null; then
		echo "build.sh: Go is needed to build the test cluster and is not there: install Go 1.24 or newer" >&2
		exit 1
	fi
	mkdir -p "$cache"
	# One build at a time; the lock ends with the process that holds it.
	exec 9>"$cache/.lock"
	flock 9
	rm -rf "$cache"/.build.*
	trap 'rm -rf "$cache"/.build.*' EXIT
	trap 'exit 1' INT TERM HUP
	if [ $kube = yes ]; then
		version=$(sed -n 's/^\tk8s.io\/kubernetes //p' kube/go.mod)
		minor=${version#v1.}
		stamp=k8s.io/component-base/version
		# Without the version stamp kubectl and the API server refuse to compare versions.
		build kube kube "$kube_folder" "-X $stamp.gitVersion=$version -X $stamp.gitMajor=1 -X $stamp.gitMinor=${minor%%.*}"
		build dns coredns "$dns_folder" ""
	fi
	if [ $csi = yes ]; then
		build csi/driver csi-driver "$(csi_folder driver)" ""
		for module in provisioner snapshotter sanity; do
			build csi/$module tool "$(csi_folder $module)" ""
		done
	fi
	build . cluster "$cluster_folder" ""
fi
echo "$cache/$cluster_folder"
