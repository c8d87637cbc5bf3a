package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// folder checks a request and returns where the volume is; the lock is held.
func (d *driver) folder(id string, capability *csi.VolumeCapability, paths ...string) (string, error) {
	if id == "" || slices.Contains(paths, "") {
		return "", status.Error(codes.InvalidArgument, "the volume's id or a path is missing")
	}
	if capability == nil {
		return "", status.Error(codes.InvalidArgument, "the volume's capability is missing")
	}
	if err := mountable(capability); err != nil {
		return "", err
	}
	v, err := d.volumes.get(id)
	if err == nil && v == nil {
		err = status.Errorf(codes.NotFound, "no volume %q", id)
	}
	return d.volumePath(id), err
}

func (d *driver) NodeStageVolume(_ context.Context, r *csi.NodeStageVolumeRequest) (*csi.NodeStageVolumeResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	folder, err := d.folder(r.GetVolumeId(), r.GetVolumeCapability(), r.GetStagingTargetPath())
	if err != nil {
		return nil, err
	}
	return &csi.NodeStageVolumeResponse{}, mount(folder, r.GetStagingTargetPath(), false)
}

func (d *driver) NodePublishVolume(_ context.Context, r *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	target, staged := r.GetTargetPath(), r.GetStagingTargetPath()
	folder, err := d.folder(r.GetVolumeId(), r.GetVolumeCapability(), target, staged)
	if err != nil {
		return nil, err
	}
	places, err := mounts(folder)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(places, staged) {
		return nil, status.Errorf(codes.FailedPrecondition, "volume %s is not staged on %s", r.GetVolumeId(), staged)
	}
	readonly := r.GetReadonly()
	switch r.GetVolumeCapability().GetAccessMode().GetMode() {
	case csi.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY, csi.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY:
		readonly = true
	case csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER:
		for _, place := range places {
			if place != staged && place != target {
				return nil, status.Errorf(codes.FailedPrecondition, "volume %s is for one writer and is used on %s", r.GetVolumeId(), place)
			}
		}
	}
	return &csi.NodePublishVolumeResponse{}, mount(folder, target, readonly)
}

func (d *driver) NodeUnpublishVolume(_ context.Context, r *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	if r.GetVolumeId() == "" || r.GetTargetPath() == "" {
		return nil, status.Error(codes.InvalidArgument, "the volume's id or the target path is missing")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return &csi.NodeUnpublishVolumeResponse{}, unmount(r.GetTargetPath())
}

func (d *driver) NodeUnstageVolume(_ context.Context, r *csi.NodeUnstageVolumeRequest) (*csi.NodeUnstageVolumeResponse, error) {
	if r.GetVolumeId() == "" || r.GetStagingTargetPath() == "" {
		return nil, status.Error(codes.InvalidArgument, "the volume's id or the staging path is missing")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return &csi.NodeUnstageVolumeResponse{}, unmount(r.GetStagingTargetPath())
}

func (d *driver) NodeGetVolumeStats(_ context.Context, r *csi.NodeGetVolumeStatsRequest) (*csi.NodeGetVolumeStatsResponse, error) {
	id := r.GetVolumeId()
	if id == "" || r.GetVolumePath() == "" {
		return nil, status.Error(codes.InvalidArgument, "the volume's id or path is missing")
	}
	d.mu.Lock()
	v, err := d.volumes.get(id)
	d.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if v == nil {
		return nil, status.Errorf(codes.NotFound, "no volume %q", id)
	}
	if same, err := sameFolder(d.volumePath(id), r.GetVolumePath()); err != nil {
		return nil, err
	} else if !same {
		return nil, status.Errorf(codes.NotFound, "volume %s is not on %s", id, r.GetVolumePath())
	}
	used, err := d.pool.used(d.volumePath(id))
	if err != nil {
		return nil, err
	}
	return &csi.NodeGetVolumeStatsResponse{Usage: []*csi.VolumeUsage{{
		Unit: csi.VolumeUsage_BYTES, Total: v.Capacity, Used: used, Available: max(0, v.Capacity-used),
	}}}, nil
}

// mount shows a folder at a path, unless it is there already.
func mount(folder, path string, readonly bool) error {
	places, err := mounts(folder)
	if err != nil {
		return err
	}
	if !slices.Contains(places, path) {
		if err := os.MkdirAll(path, 0o750); err != nil {
			return err
		}
		if err := unix.Mount(folder, path, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount %s on %s: %w", folder, path, err)
		}
	}
	if readonly {
		if err := unix.Mount("", path, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
			return fmt.Errorf("make %s read-only: %w", path, err)
		}
	}
	return nil
}

// unmount removes a mount point, mounted or not.
func unmount(path string) error {
	for {
		err := unix.Unmount(path, unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			break // nothing is mounted there
		}
		if err != nil {
			return fmt.Errorf("unmount %s: %w", path, err)
		}
	}
	// A folder alone: whatever else is there is not ours to remove.
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// mounts lists where a folder is mounted.
func mounts(folder string) ([]string, error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var places []string
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(line)
		if len(fields) < 5 {
			continue
		}
		path := unescape(fields[4])
		if same, err := sameFolder(folder, path); err == nil && same {
			places = append(places, path)
		}
	}
	return places, nil
}

// unescape undoes the octal escapes of the kernel's mount lists.
func unescape(path string) string {
	for i := 0; i+4 <= len(path); i++ {
		if code, err := strconv.ParseUint(path[i+1:i+4], 8, 8); path[i] == '\\' && err == nil {
			path = path[:i] + string(rune(code)) + path[i+4:]
		}
	}
	return path
}

// sameFolder says whether two paths lead to the same folder: a bind mount has
// the device and inode of what it shows.
func sameFolder(a, b string) (bool, error) {
	infoA, err := os.Stat(a)
	if err == nil {
		var infoB os.FileInfo
		if infoB, err = os.Stat(b); err == nil {
			return os.SameFile(infoA, infoB), nil
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return false, err
}
