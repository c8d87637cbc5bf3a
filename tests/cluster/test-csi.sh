# shellcheck shell=bash disable=SC2154
# The level csi of test.sh, which sources this and has checks and variables.

# claim NAME CLASS MODE SIZE [KIND SOURCE]: a claim, perhaps made from a
# VolumeSnapshot or a PersistentVolumeClaim.
claim() {
	local source=null
	case ${5-} in
	VolumeSnapshot) source="{apiGroup: snapshot.storage.k8s.io, kind: $5, name: $6}" ;;
	PersistentVolumeClaim) source="{kind: $5, name: $6}" ;;
	esac
	"${k[@]}" apply -f - <<-YAML
		apiVersion: v1
		kind: PersistentVolumeClaim
		metadata: {name: $1}
		spec:
		  storageClassName: $2
		  accessModes: [$3]
		  resources: {requests: {storage: $4}}
		  dataSource: $source
	YAML
}

# pod NAME CLAIM COMMAND [READONLY]: as a user without rights, in a group.
pod() {
	"${k[@]}" apply -f - <<-YAML
		apiVersion: v1
		kind: Pod
		metadata: {name: $1}
		spec:
		  restartPolicy: Never
		  terminationGracePeriodSeconds: 0
		  securityContext: {runAsUser: 65532, runAsGroup: 65532, fsGroup: 65532}
		  containers:
		  - name: main
		    image: localhost/busybox:1
		    command: [sh, -c, "$3"]
		    volumeMounts: [{name: data, mountPath: /data}]
		  volumes: [{name: data, persistentVolumeClaim: {claimName: $2, readOnly: ${4:-false}}}]
	YAML
}

# shot NAME CLAIM [CLASS]: a snapshot.
shot() {
	"${k[@]}" apply -f - <<-YAML
		apiVersion: snapshot.storage.k8s.io/v1
		kind: VolumeSnapshot
		metadata: {name: $1}
		spec: {volumeSnapshotClassName: ${3:-csi}, source: {persistentVolumeClaimName: $2}}
	YAML
}

phase() { "${k[@]}" wait --for="jsonpath={.status.phase}=$2" "$1" --timeout=180s; }
ready() { "${k[@]}" wait --for="jsonpath={.status.readyToUse}=${2:-true}" "volumesnapshot/$1" --timeout=180s; }
status_of() { "${k[@]}" get volumesnapshot "$1" -o "jsonpath={.status$2}"; }
handle() { "${k[@]}" get volumesnapshotcontent "$(status_of "$1" .boundVolumeSnapshotContentName)" -o 'jsonpath={.status.snapshotHandle}'; }
fault() { echo "$2" >"$faults/$1"; }
in_pool() { cluster exec "$dir" test -e "$dir/csi/pool/$1"; }
failure_of() { "${k[@]}" get events --field-selector "reason=ProvisioningFailed,involvedObject.name=$1" -o 'jsonpath={.items[*].message}'; }
# asked METHOD: how often the driver was.
asked() { grep -c " $1: " "$dir/log/csi-driver.log"; }
more_asked() { [ "$(asked "$1")" -ge "$2" ]; }
no_loop() { [ -z "$(losetup --associated "$dir/csi/pool.img")" ]; }
# after TIME SECONDS: so many seconds have passed since.
after() { [ $(($(date +%s) - $(date -d "$1" +%s))) -ge "$2" ]; }

# sanity runs the conformance tests. Skipped are those of what the driver does not
# offer: attaching, expansion, modification, health, groups, topology; pending is
# one that its authors disabled.
sanity() {
	mkdir "$dir/sanity"
	says '64 Passed | 0 Failed | 1 Pending | 38 Skipped' cluster exec "$dir" "$bin/csi-sanity/csi-sanity" \
		--csi.endpoint=/var/lib/kubelet/plugins/csi.imagecache.test/csi.sock \
		--csi.mountdir="$dir/sanity/target" --csi.stagingdir="$dir/sanity/staging" --ginkgo.no-color
}

csi_level() {
	local dir=$work/csi faults=$work/csi/csi/faults before ids
	ids=$(for dir in "$work/csi" "$work/folders"; do printf %s "$dir" | sha256sum | cut -c1-8; done | paste -sd'|')
	before=$(snapshot "$ids")
	dir=$work/csi
	k=(cluster kubectl "$dir")
	check "csi: up" cluster up "$dir"
	check "csi: parts can be switched when they are there" says 'has no CSI' cluster csi "$dir" stop csi-driver
	check "csi: csi" cluster csi "$dir"
	check "csi: and again" cluster csi "$dir"
	local kind
	kind=$(<"$dir/csi/wanted")
	echo "      volumes are $kind"
	[ "$kind" = folders ] || check "csi: another kind is refused" says 'are btrfs already' cluster csi "$dir" --folders
	check "csi: conformance, $kind" sanity
	csi_volumes
	csi_faults
	csi_parts
	csi_ends

	dir=$work/folders
	k=(cluster kubectl "$dir")
	check "csi: up, for folders" cluster up "$dir"
	check "csi: csi with folders" cluster csi "$dir" --folders
	check "csi: no loop device for folders" test ! -e "$dir/csi/pool.img"
	check "csi: conformance, folders" sanity
	kind=folders
	csi_volumes
	check "csi: down with folders" cluster down "$dir"
	check "csi: nothing is left" diff <(echo "$before") <(snapshot "$ids")
}

# csi_volumes provisions, writes, takes a snapshot and restores it.
csi_volumes() {
	local sum
	claim data csi ReadWriteOnce 100Mi >/dev/null
	check "csi: an Immediate claim is bound without a pod" phase pvc/data Bound
	pod writer data 'head -c 5000000 /dev/urandom >/data/file; sha256sum </data/file; id -G; stat -c %g /data' >/dev/null
	check "csi: a pod writes" phase pod/writer Succeeded
	check "csi: with fsGroup" says 65532 "${k[@]}" logs writer --tail=1
	sum=$("${k[@]}" logs writer | head -n 1)
	shot shot data >/dev/null
	check "csi: a snapshot is ready" ready shot
	check "csi: its size is the volume's" test "$(status_of shot .restoreSize)" = 100Mi
	pod changer data 'echo changed >/data/file' >/dev/null
	check "csi: the volume changes" phase pod/changer Succeeded

	claim restored csi-wait ReadWriteOnce 200Mi VolumeSnapshot shot >/dev/null
	claim cloned csi-wait ReadWriteOnce 100Mi PersistentVolumeClaim data >/dev/null
	check "csi: a claim waits for its consumer" eventually says WaitForFirstConsumer "${k[@]}" describe pvc restored
	pod reader restored 'sha256sum </data/file; echo more >>/data/file' >/dev/null
	check "csi: a pod reads what was restored" phase pod/reader Succeeded
	check "csi: it is what was in the snapshot" test "$("${k[@]}" logs reader)" = "$sum"
	pod cloner cloned 'cat /data/file' >/dev/null
	check "csi: a clone" phase pod/cloner Succeeded
	check "csi: is what the volume is now" says changed "${k[@]}" logs cloner

	claim many csi ReadOnlyMany 100Mi VolumeSnapshot shot >/dev/null
	pod reader1 many 'sha256sum </data/file; touch /data/new; sleep 600' >/dev/null
	pod reader2 many 'sha256sum </data/file; touch /data/new; sleep 600' true >/dev/null
	for name in reader1 reader2; do
		check "csi: ReadOnlyMany: $name has it" eventually says "$sum" "${k[@]}" logs $name
		check "csi: and cannot write" eventually says 'Read-only file system' "${k[@]}" logs $name
	done
	claim alone csi ReadWriteOncePod 100Mi >/dev/null
	pod alone alone 'echo alone >/data/file' >/dev/null
	check "csi: ReadWriteOncePod" phase pod/alone Succeeded
	claim shared csi ReadWriteMany 100Mi >/dev/null
	pod one shared 'until grep two /data/file; do sleep 0.1; done' >/dev/null
	pod two shared 'echo two >/data/file' >/dev/null
	check "csi: ReadWriteMany: one writes" phase pod/two Succeeded
	check "csi: another sees it" phase pod/one Succeeded
	if [ "$kind" = btrfs ]; then
		pod hog shared 'dd if=/dev/zero of=/data/big bs=1M count=200' >/dev/null
		check "csi: a volume takes no more than its size" phase pod/hog Failed
		check "csi: and says so" says 'quota exceeded' "${k[@]}" logs hog
	fi
	check "csi: usage is reported" eventually says '"capacityBytes": 104857600' \
		"${k[@]}" get --raw /api/v1/nodes/node/proxy/stats/summary

	local id volume
	id=$(handle shot)
	check "csi: a snapshot is in the pool" in_pool "snapshots/$id"
	volume=$("${k[@]}" get pv "$("${k[@]}" get pvc shared -o 'jsonpath={.spec.volumeName}')" -o 'jsonpath={.spec.csi.volumeHandle}')
	check "csi: a volume is in the pool" in_pool "volumes/$volume"
	"${k[@]}" delete pod reader1 reader2 one two --force >/dev/null 2>&1
	check "csi: a snapshot that restored volumes came from can go" "${k[@]}" delete volumesnapshot shot --timeout=180s
	check "csi: and is gone" eventually refused in_pool "snapshots/$id"
	[ "$kind" != btrfs ] || "${k[@]}" delete pod hog >/dev/null
	check "csi: a volume can go" "${k[@]}" delete pvc shared --timeout=180s
	check "csi: and is gone" eventually refused in_pool "volumes/$volume"
}

csi_faults() {
	local count
	fault snapshot-slow 6s
	shot slow data >/dev/null
	check "csi: a slow snapshot is not ready" ready slow false
	rm "$faults/snapshot-slow"
	check "csi: but later" ready slow
	check "csi: after its time" after "$(status_of slow .creationTime)" 6

	fault fail-CreateSnapshot 3
	shot failing data >/dev/null
	check "csi: a snapshot's error" eventually says 'fault fail-CreateSnapshot' status_of failing .error.message
	check "csi: clears" ready failing
	check "csi: without the error" empty status_of failing .error
	check "csi: and the fault is off" test ! -e "$faults/fail-CreateSnapshot"

	fault snapshot-unready on
	shot unready data >/dev/null
	check "csi: a snapshot that is never ready" ready unready false
	count=$(asked 'GetSnapshot\|ListSnapshots\|CreateSnapshot')
	check "csi: is asked for again" eventually more_asked 'GetSnapshot\|ListSnapshots\|CreateSnapshot' $((count + 3))
	check "csi: and is not ready still" test "$(status_of unready .readyToUse)" = false
	claim early csi ReadWriteOnce 100Mi VolumeSnapshot unready >/dev/null
	check "csi: nor restored" eventually says 'not Ready' failure_of early
	rm "$faults/snapshot-unready"
	check "csi: until the fault is off" ready unready
	check "csi: and is restored" phase pvc/early Bound

	fault snapshot-size 209715200
	shot big data >/dev/null
	check "csi: a snapshot of another size" ready big
	check "csi: says so" test "$(status_of big .restoreSize)" = 200Mi
	fault snapshot-size 0
	shot unsized data >/dev/null
	check "csi: a snapshot of no size" ready unsized
	check "csi: says none" empty status_of unsized .restoreSize
	rm "$faults/snapshot-size"
	claim small csi ReadWriteOnce 100Mi VolumeSnapshot big >/dev/null
	check "csi: too big for a volume of the true size" eventually says 'less than the size' failure_of small
	claim large csi ReadWriteOnce 200Mi VolumeSnapshot big >/dev/null
	check "csi: but good for a bigger one" phase pvc/large Bound

	fault fail-CreateVolume '2 RESOURCE_EXHAUSTED'
	claim failing csi ReadWriteOnce 100Mi >/dev/null
	check "csi: a volume's error, with its code" eventually says 'ResourceExhausted desc = fault fail-CreateVolume' failure_of failing
	check "csi: clears" phase pvc/failing Bound
	fault snapshot-slow soon
	shot nonsense data >/dev/null
	check "csi: a fault that means nothing is an error" eventually says 'fault snapshot-slow' status_of nonsense .error.message
	rm "$faults/snapshot-slow"
	check "csi: which clears" ready nonsense
}

# csi_parts stops and kills what runs.
csi_parts() {
	local id half
	half=volumes/vol-$(printf '0%.0s' {1..32})
	check "csi: a part is named" says 'name csi-driver' cluster csi "$dir" stop nothing
	check "csi: the controller stops" cluster csi "$dir" stop snapshot-controller
	check "csi: it does" empty cluster exec "$dir" pgrep -x snapshot-contro
	shot later data >/dev/null
	claim meanwhile csi ReadWriteOnce 100Mi >/dev/null
	check "csi: the rest works" phase pvc/meanwhile Bound
	check "csi: a snapshot waits" empty status_of later
	check "csi: the controller starts" cluster csi "$dir" start snapshot-controller
	check "csi: the snapshot is taken" ready later
	id=$(handle later)

	check "csi: the driver stops" cluster csi "$dir" stop csi-driver
	claim without csi ReadWriteOnce 100Mi >/dev/null
	# As if it had been killed in the middle of CreateVolume.
	cluster exec "$dir" sh -c "cd $dir/csi/pool && { btrfs subvolume create $half || mkdir $half; }" >/dev/null 2>&1
	check "csi: something unfinished is there" in_pool "$half"
	check "csi: and starts" cluster csi "$dir" start csi-driver
	check "csi: a claim made without it is bound" phase pvc/without Bound
	check "csi: what was unfinished is gone" refused in_pool "$half"
	check "csi: the driver is killed" cluster exec "$dir" kill -9 "$(<"$dir/csi/running/csi-driver")"
	pod after without 'echo after >/data/file' >/dev/null
	check "csi: and comes back by itself" phase pod/after Succeeded
	claim restored2 csi ReadWriteOnce 100Mi VolumeSnapshot later >/dev/null
	check "csi: it knows what was there" phase pvc/restored2 Bound
	"${k[@]}" delete volumesnapshot later --timeout=180s >/dev/null
	check "csi: and removes it" eventually refused in_pool "snapshots/$id"
	check "csi: the cluster lives" cluster status "$dir"

	shot kept data csi-retain >/dev/null
	check "csi: a snapshot of class csi-retain" ready kept
	id=$(handle kept)
	"${k[@]}" delete volumesnapshot kept --timeout=180s >/dev/null
	check "csi: leaves its content" says "$id" "${k[@]}" get volumesnapshotcontent -o 'jsonpath={.items[*].status.snapshotHandle}'
	check "csi: and what it stands for" in_pool "snapshots/$id"
}

# csi_ends takes the cluster down, with volumes in use, in both ways.
csi_ends() {
	pod user data 'cat /data/file; sleep 600' >/dev/null
	check "csi: a volume is in use" eventually says changed "${k[@]}" logs user
	check "csi: down" cluster down "$dir"
	check "csi: no loop device is left" no_loop
	check "csi: nor anything else" diff <(echo "$before") <(snapshot "$ids")
	check "csi: up again" says 'CSI is ready' cluster up "$dir"
	"${k[@]}" delete pod user --force >/dev/null 2>&1
	pod again data 'cat /data/file; sleep 600' >/dev/null
	check "csi: what was written is there" eventually says changed "${k[@]}" logs again
	kill -9 "$(supervisor "$dir")"
	check "csi: down after a kill" cluster down "$dir"
	check "csi: no loop device is left after a kill" no_loop
	check "csi: nor anything else, after a kill" diff <(echo "$before") <(snapshot "$ids")
}
