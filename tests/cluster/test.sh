#!/bin/bash
# Tests of the test cluster itself: test.sh [api|node|csi]..., by default api and
# node. All but api take root and the packages of packages.sh.
set -u
cd "$(dirname "$0")" || exit 1
build=()
[[ " $* " != *' csi '* ]] || build=(--csi)
bin=$(./build.sh "${build[@]}") || exit 1
PATH=$bin:$PATH
work=$(mktemp -d)
passed=0 failed=0 registry=

cleanup() {
	for dir in "$work"/*/; do
		[ ! -e "$dir/cluster.json" ] || cluster down "$dir"
	done
	[ -z "$registry" ] || kill "$registry"
	rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 1' INT TERM

# check NAME COMMAND...: count it, and show its output when it fails.
check() {
	local name=$1 out
	shift
	if out=$("$@" 2>&1); then
		passed=$((passed + 1))
		echo "ok    $name"
	else
		failed=$((failed + 1))
		printf 'FAIL  %s: %s\n%s\n' "$name" "$*" "$out" | head -n 40
	fi
}

# eventually COMMAND...: until it succeeds, for three minutes at most.
eventually() {
	local end=$((SECONDS + 180))
	until "$@"; do
		[ $SECONDS -lt $end ] || return 1
		sleep 0.2
	done
}

refused() { ! "$@"; }

# says TEXT COMMAND...: the command, however it ends, prints the text.
says() {
	local text=$1 out
	shift
	out=$("$@" 2>&1)
	echo "$out"
	grep -qF -- "$text" <<<"$out"
}

field() { sed -n "s/^  \"$2\": \"\{0,1\}\([^\",]*\).*/\1/p" "$1/cluster.json"; }
supervisor() { cut -d' ' -f1 "$1/supervisor.pid"; }
exited() { refused kill -0 "$1"; }

admission() { # KUBECTL...
	check "admission manifests" "$@" apply -f test/admission.yaml
	check "Pod Security refuses" says 'violates PodSecurity "restricted' \
		"$@" -n strict run bad --image=localhost/busybox:1 --overrides='{"spec":{"hostNetwork":true}}' --dry-run=server
	check "a policy denies by authorizer" eventually says 'eve may not get secret s1' \
		"$@" --as=eve create configmap probe --from-literal=secret=s1 --dry-run=server
	check "and allows who may" "$@" create configmap allowed --from-literal=secret=s1 --dry-run=server
	check "RBAC refuses" says Forbidden "$@" --as=eve get pods
}

api_level() {
	local dir=$work/api round
	for round in 1 2; do
		check "api: up $round" cluster up "$dir" --level api
		check "api: status $round" says 'up: level api' cluster status "$dir"
		check "api: what was made stays $round" says made$round sh -c \
			"cluster kubectl $dir create ns made$round; cluster kubectl $dir get ns made1 made$round"
		check "api: a second up is refused" says 'is up already' cluster up "$dir" --level api
		[ $round = 2 ] || check "api: down $round" cluster down "$dir"
	done
	admission cluster kubectl "$dir"
	check "api: audit log" grep -q '"level":"Metadata"' "$dir/log/audit.log"
	check "api: exec says that there is no node" says 'has no node' cluster exec "$dir" true

	check "api: kubectl asks this cluster, whatever the environment says" says made2 \
		env KUBECONFIG=/none HTTPS_PROXY=http://127.0.0.1:1 cluster kubectl "$dir" get ns

	cat >"$work/policy.yaml" <<-YAML
		apiVersion: audit.k8s.io/v1
		kind: Policy
		rules: [{level: RequestResponse, resources: [{group: "", resources: [namespaces]}]}]
	YAML
	check "api: another one at once" cluster up "$work/api2" --level api --audit-policy "$work/policy.yaml"
	cluster kubectl "$work/api2" create ns audited >/dev/null
	check "api: its own audit policy" eventually grep -q '"level":"RequestResponse".*"name":"audited"' "$work/api2/log/audit.log"
	local children
	children=$(pgrep -P "$(supervisor "$dir")")
	check "api: it has children" test "$(wc -w <<<"$children")" = 3
	kill -9 "$(supervisor "$dir")"
	for pid in $children; do
		check "api: child $pid dies with a killed supervisor" eventually exited "$pid"
	done
	check "api: up after the kill" says 'cluster down' cluster up "$dir" --level api
	check "api: down after the kill" cluster down "$dir"
	check "api: the other one lives" says 'kube-system' cluster kubectl "$work/api2" get ns
	check "api: down of the other one" cluster down "$work/api2"
	if [ "$(id -u)" = 0 ]; then
		unprivileged
	fi
}

# unprivileged runs with binaries of others, and none of ours, as nobody.
unprivileged() {
	local dir=$work/nobody
	mkdir -p "$dir/bin/x" "$dir/assets"
	chmod 755 "$work"
	cp "$bin/cluster" "$dir/bin/x/"
	for name in etcd kube-apiserver kubectl; do
		cp -L "$bin/kube/$name" "$dir/assets/"
	done
	chown -R nobody "$dir"
	local as=(setpriv --reuid=nobody --regid=nogroup --clear-groups env KUBEBUILDER_ASSETS="$dir/assets" "$dir/bin/x/cluster")
	check "nobody: up with KUBEBUILDER_ASSETS" says 'kube-controller-manager is left out' "${as[@]}" up "$dir/c" --level api
	check "nobody: kubectl" says kube-system "${as[@]}" kubectl "$dir/c" get ns
	check "nobody: down" "${as[@]}" down "$dir/c"
	check "nobody: a node takes root" says 'run it as root' "${as[@]}" up "$dir/n" --level node
}

# snapshot is what clusters could leave on the machine, but for those of others.
snapshot() {
	ip -o link | sed 's/^[0-9]*: //; s/@.*//; s/:.*//' | grep -v '^ic-' | sort
	ip -o link | grep -oE "ic-($1)"
	ip route show table all | grep -v 'dev ic-' | sort
	ip route show table all | grep -E "dev ic-($1)"
	ip rule
	sort /proc/mounts
	nft list tables
	find /sys/fs/cgroup -maxdepth 2 -name '*kube*'
	find /sys/fs/cgroup -maxdepth 2 | grep -E "imagecache-($1)"
	sysctl -a 2>/dev/null | grep -E '^(vm\.(overcommit|panic)|kernel\.(panic|keys)|net\.ipv4\.(ip_forward|conf\.(all|default|lo|eth0)\.)|net\.netfilter\.nf_conntrack_(max|tcp_timeout|buckets)|net\.bridge)'
	ls -d /run/* /var/lib/* /var/log/* /opt/* /etc/cni* /usr/libexec/* 2>/dev/null
}

# inhabitants lists the processes in a pid namespace.
inhabitants() { find /proc -maxdepth 3 -path '/proc/[0-9]*/ns/pid' -lname "$1" 2>/dev/null; }
empty() { [ -z "$("$@")" ]; }

start_registry() { # ADDRESS
	cat >"$work/registry.yml" <<-YAML
		version: 0.1
		log: {level: warn}
		storage: {filesystem: {rootdirectory: $work/registry}}
		http: {addr: $1:5000}
	YAML
	docker-registry serve "$work/registry.yml" >"$work/registry.log" 2>&1 &
	registry=$!
}

fill_registry() { # ADDRESS IMAGE
	eventually curl -sf "http://$1:5000/v2/" || return 1
	for tag in 1 2; do
		skopeo --insecure-policy copy --dest-tls-verify=false "oci-archive:$2" "docker://$1:5000/team/app:$tag" || return 1
	done
}

hosts_toml() { # DIR REGISTRY SERVER
	mkdir -p "$1/certs.d/$2"
	printf '[host."%s"]\n  capabilities = ["pull", "resolve"]\n' "$3" >"$1/certs.d/$2/hosts.toml"
}

succeeded() { eventually says Succeeded "${k[@]}" get pod "$1" -o 'jsonpath={.status.phase}'; }
in_pod() { "${k[@]}" exec client -- sh -c "$1"; }

all_offered() { [ "$("${k[@]}" get pv --no-headers | grep -c Available)" = 5 ]; }

workloads() { # DIR
	local dir=$1 host node service
	host=$(<"$dir/host-ip") node=$(<"$dir/node-ip")
	k=(cluster kubectl "$dir")
	start_registry "$host"
	check "registry on the machine" fill_registry "$host" "$dir/images/busybox.tar"
	hosts_toml "$dir" registry.demo:5000 http://registry.demo:5000
	hosts_toml "$dir" registry.invalid "http://$node:30500"
	sed "s/HOST_IP/$host/" test/node.yaml >"$work/node.yaml"
	check "workloads" "${k[@]}" apply -f "$work/node.yaml"

	check "Job completes" "${k[@]}" wait --for=condition=complete job/hello --timeout=180s
	check "logs" says 'hello from a job' "${k[@]}" logs job/hello
	check "Deployment" "${k[@]}" rollout status deployment/web --timeout=180s
	check "client pod" "${k[@]}" wait --for=condition=Ready pod/client --timeout=180s
	service=$("${k[@]}" get service web -o 'jsonpath={.spec.clusterIP}')
	pod=$("${k[@]}" get pod -l app=web -o 'jsonpath={.items[0].status.podIP}')
	check "pod from the machine" eventually says 'served by a pod' curl -sS "http://$pod:8080/"
	check "ClusterIP from the machine" eventually says 'served by a pod' curl -sS "http://$service/"
	check "NodePort from the machine" eventually says 'served by a pod' curl -sS "http://$node:30080/"
	check "NodePort from the node" says 'served by a pod' cluster exec "$dir" curl -sS "http://$node:30080/"
	check "ClusterIP from the node" says 'served by a pod' cluster exec "$dir" curl -sS "http://$service/"
	check "no NodePort at the node's loopback" refused cluster exec "$dir" curl -sS --max-time 5 http://127.0.0.1:30080/
	get='printf "GET %s HTTP/1.0\r\nHost: %s\r\n\r\n"'
	check "ClusterIP from a pod, by name" says 'served by a pod' in_pod "$get / web | nc web 80"
	check "NodePort from a pod" says 'served by a pod' in_pod "$get / web | nc $node 30080"
	check "a pod reaches the machine" says '200 OK' in_pod "$get /v2/ registry.demo | nc registry.demo 5000"
	check "DNS of services" says "$service" in_pod 'nslookup web.default.svc.cluster.local'
	check "DNS of --host" says "$host" in_pod 'nslookup registry.demo'
	check "DNS of the rest: NXDOMAIN" says NXDOMAIN in_pod 'nslookup no.such.name'
	echo "$host added.later" >>"$dir/hosts"
	check "DNS of a name added later" eventually says "$host" in_pod 'nslookup added.later'
	check "and the node knows it" says "$host" cluster exec "$dir" getent hosts added.later

	check "a claim is bound and written" succeeded writer
	check "by uid 65532 in fsGroup" says 65532:65532 "${k[@]}" logs writer
	check "on the machine" grep -rq written "$dir/volumes"
	"${k[@]}" delete pod/writer pvc/data >/dev/null
	check "its volume is offered again" eventually all_offered
	check "and empty" eventually refused grep -rq written "$dir/volumes"
	check "OOMKilled" eventually says OOMKilled "${k[@]}" get pod hog -o 'jsonpath={.status.containerStatuses[0].state.terminated.reason}'
	check "pull by name" succeeded pulled
	check "pull through a mirror at a NodePort" succeeded mirrored
	skopeo --insecure-policy copy "oci-archive:$dir/images/busybox.tar" "docker-archive:$work/loaded.tar:localhost/loaded:1" >/dev/null
	check "load" cluster load "$dir" "$work/loaded.tar"
	check "loaded" says localhost/loaded:1 cluster exec "$dir" ctr images ls -q
	admission "${k[@]}"
	check "audit log" grep -q '"level":"Metadata"' "$dir/log/audit.log"
}

node_level() {
	local a=$work/a b=$work/b deep before ids
	deep=/var/lib/imagecache-test-$$/$(printf 'deep%.0s' {1..30})
	ids=$(for dir in "$a" "$b" "$deep" "$work/broken" "$work/cut"; do printf %s "$dir" | sha256sum | cut -c1-8; done | paste -sd'|')
	before=$(snapshot "$ids")
	check "node: up" cluster up "$a" --host registry.demo=host
	check "node: status" says 'up: level node' cluster status "$a"
	workloads "$a"
	check "node: down" cluster down "$a"
	check "node: nothing is left" diff <(echo "$before") <(snapshot "$ids")
	kill "$registry"
	registry=

	cluster up "$a" >"$work/a.out" 2>&1 &
	local first=$!
	check "node: up has addresses" eventually test -e "$a/host-ip"
	check "node: another one at once" cluster up "$b"
	wait $first
	check "node: up again, with what was there" test $? = 0
	check "node: addresses differ" test "$(<"$a/node-ip")" != "$(<"$b/node-ip")"
	check "node: the Job of the first run is there" says Complete cluster kubectl "$a" get job hello
	check "node: and its Deployment runs" cluster kubectl "$a" rollout status deployment/web --timeout=180s
	for dir in "$a" "$b"; do
		check "node: Job" cluster kubectl "$dir" create job again --image=localhost/busybox:1 -- echo again
		check "node: Job completes" cluster kubectl "$dir" wait --for=condition=complete job/again --timeout=180s
	done
	local namespace
	namespace=$(readlink "/proc/$(supervisor "$a")/ns/pid" | tr '[]' '??') # a pattern for find
	check "node: it has processes" refused empty inhabitants "$namespace"
	kill -9 "$(supervisor "$a")"
	check "node: killed, with all its processes" eventually empty inhabitants "$namespace"
	check "node: up after the kill" says 'cluster down' cluster up "$a"
	check "node: kubectl after the kill" says 'cluster down' cluster kubectl "$a" get ns
	check "node: down after the kill" cluster down "$a"
	check "node: the other one lives" says Ready cluster kubectl "$b" get nodes
	check "node: containers of the other one live" says again cluster kubectl "$b" logs job/again
	check "node: down of the other one" cluster down "$b"
	check "node: nothing is left of either" diff <(echo "$before") <(snapshot "$ids")

	# In folders that the node does not see, and too deep for a socket.
	check "node: up in a deep folder of /var/lib" cluster up "$deep"
	check "node: a pod there" cluster kubectl "$deep" run hello --image=localhost/busybox:1 --restart=Never -- echo hello
	check "node: it runs" cluster kubectl "$deep" wait --for='jsonpath={.status.phase}'=Succeeded pod/hello --timeout=180s
	check "node: down there" cluster down "$deep"
	rm -rf "/var/lib/imagecache-test-$$"
	check "node: a component that ends is named" says 'etcd ended' broken "$work/broken"
	check "node: up that is interrupted" says 'stopped by interrupt' timeout --preserve-status -s INT 1 cluster up "$work/cut"
	check "node: nothing is left of these" diff <(echo "$before") <(snapshot "$ids")
}

# shellcheck source=tests/cluster/test-csi.sh
source ./test-csi.sh

# broken is a cluster whose etcd cannot start.
broken() {
	mkdir -p "$1"
	echo not-a-folder >"$1/etcd"
	cluster up "$1"
}

levels=("$@")
[ $# -gt 0 ] || levels=(api node)
for level in "${levels[@]}"; do
	"${level}_level"
done
echo "$passed passed, $failed failed"
[ $failed = 0 ]
