#!/bin/bash
# From `kubectl apply` to a pod that starts without its registry, on a real cluster on this machine.
#   demo.sh          leaves the cluster for looking around
#   demo.sh --down   removes it at the end
# The exit status says whether every step held.
set -euo pipefail
[ "$(id -u)" = 0 ] || { echo "demo: a node with containerd needs root: run it as root (sudo make demo)" >&2; exit 1; }
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
down=${1:-}
[ ! -d "$demo" ] || "$root/tests/demo/down.sh"
mkdir -p "$demo"
if [ "$down" = --down ]; then trap '"$root/tests/demo/down.sh"' EXIT; fi

say "1. A Kubernetes cluster"
cluster up "$demo/cluster" --level node --host registry.demo=host --host private.demo=host
host=$(cat "$demo/cluster/host-ip") node=$(cat "$demo/cluster/node-ip")
export KUBECONFIG=$demo/cluster/kubeconfig
kubectl get nodes -o wide
cluster load "$demo/cluster" "$root/target/image/imagecache.tar"

say "2. Two registries: one open, one with a password"
password=$(head -c 12 /dev/urandom | od -An -tx1 | tr -d ' \n')
htpasswd -nbB demo "$password" >"$demo/htpasswd"
registry() { # NAME PORT EXTRA-YAML
	printf 'version: 0.1\nlog: {level: info, accesslog: {disabled: false}}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: "%s:%s"}\n%s\n' \
		"$demo/$1" "$host" "$2" "$3" >"$demo/$1.yml"
	docker-registry serve "$demo/$1.yml" >"$demo/$1.log" 2>&1 &
	echo $! >"$demo/$1.pid"
	wait_for 60 "the registry on $host:$2" bash -c "exec 3<>/dev/tcp/$host/$2"
}
registry open 5000 ""
registry private 5001 "auth: {htpasswd: {realm: demo, path: $demo/htpasswd}}"
"$root/tests/demo/samples.sh" "$host:5000" "$host:5001" "demo:$password"
echo "registry.demo:5000 holds shop/web, shop/api and shop/worker; private.demo:5001 holds team/report."

say "3. Install: kubectl apply -k config/ (with this build's image, and the demo's registry listed as public)"
kubectl apply -k "$root/tests/demo"
kubectl -n imagecache-system rollout status deployment --timeout=180s
for name in registry.demo:5000 private.demo:5001; do
	mkdir -p "$demo/cluster/certs.d/$name"
	printf 'server = "http://%s"\n[host."http://%s:30500"]\n  capabilities = ["pull", "resolve"]\n  dial_timeout = "1s"\n' "$name" "$node" >"$demo/cluster/certs.d/$name/hosts.toml"
done

say "4. kubectl apply -f examples/quickstart.yaml"
kubectl -n default create secret docker-registry registry-login --docker-server=private.demo:5001 --docker-username=demo --docker-password="$password"
kubectl apply -f "$root/examples/quickstart.yaml"
"$bin/cluster" kubectl "$demo/cluster" get imagecaches --watch &
watch=$!
kubectl wait --for=condition=Ready imagecache/quickstart --timeout=300s >/dev/null || { kill "$watch"; kubectl describe imagecache quickstart; fail "the cache did not become Ready"; }
kill "$watch"
wait "$watch" 2>/dev/null || true

say "5. What was pulled, and what was reused"
kubectl get imagecache quickstart -o go-template-file="$root/tests/demo/images.tmpl"

say "6. The registries stop"
stop_registry open
stop_registry private
if curl -s --max-time 2 "http://$host:5000/v2/" >/dev/null; then fail "the registry still answers"; fi
echo "http://$host:5000 refuses connections."

say "7. A pod with a cached image"
kubectl run web --image=registry.demo:5000/shop/web:1 --restart=Never --command -- sleep 86400
kubectl wait --for=condition=Ready pod/web --timeout=120s
kubectl get pod web -o wide
kubectl describe pod web | grep -E 'Pulling|Pulled'
echo
echo "Which host served it (the mirror's log):"
served() { kubectl -n imagecache-system logs deployment/imagecache-mirror | grep '"served"' | grep '/v2/shop/web/'; }
wait_for 30 "the mirror's log to show the image" served
served

if [ "$down" = --down ]; then
	say "Every step held."
	exit 0
fi
say "Every step held. The cluster goes on running:"
cat <<END
  export KUBECONFIG=$demo/cluster/kubeconfig PATH=$bin:\$PATH
  cluster kubectl $demo/cluster get imagecaches,pods -A
  cluster kubectl $demo/cluster describe imagecache quickstart
  cluster exec $demo/cluster ctr -n k8s.io images ls
Remove it with: make demo-down
END
