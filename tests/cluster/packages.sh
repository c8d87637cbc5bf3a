#!/bin/sh
# See to the Debian packages that a test cluster with a node needs.
#
#   packages.sh           install those that are missing (as root), or name them
#   packages.sh --check   only name them
set -eu

packages='containerd runc containernetworking-plugins nftables iproute2 busybox-static btrfs-progs docker-registry skopeo buildah apache2-utils binutils ca-certificates curl g++ faketime'

case ${1-} in
'') check=no ;;
--check) check=yes ;;
*)
	sed -n '2,5s/^# \{0,1\}//p' "$0"
	exit 2
	;;
esac

missing() {
	for package in $packages; do
		case $(dpkg-query -W -f '${Status}' "$package" 2>/dev/null) in
		*' ok installed') ;;
		*) printf '%s ' "$package" ;;
		esac
	done
}

if ! command -v dpkg-query >/dev/null; then
	echo "packages.sh: this is no Debian, so install by other means what these packages hold: $packages" >&2
	exit 1
fi
wanted=$(missing)
[ -n "$wanted" ] || exit 0
if [ $check = yes ] || [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
	echo "packages.sh: missing packages, to install as root with apt-get install: $wanted" >&2
	exit 1
fi

# The packages' own services must not start: each cluster runs its own
# containerd. Debian asks this program, if it is there, before it starts any.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
	trap 'rm -f $policy' EXIT
	trap 'exit 1' INT TERM HUP
	printf '#!/bin/sh\nexit 101\n' >$policy
	chmod 755 $policy
fi
export DEBIAN_FRONTEND=noninteractive
install() {
	# shellcheck disable=SC2086 # one argument each
	apt-get install -y --no-install-recommends $wanted
}
install || { apt-get update && install; }
wanted=$(missing)
if [ -n "$wanted" ]; then
	echo "packages.sh: apt-get left these packages out: $wanted" >&2
	exit 1
fi
