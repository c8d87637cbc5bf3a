package main

import (
	"context"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// defaultCapacity is for requests that name none.
const defaultCapacity = 1 << 30

func (d *driver) CreateVolume(_ context.Context, r *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
	if r.GetName() == "" {
		return nil, status.Error(codes.InvalidArgument, "the name is missing")
	}
	if err := mountable(r.GetVolumeCapabilities()...); err != nil {
		return nil, err
	}
	if err := noParameters(r.GetParameters()); err != nil {
		return nil, err
	}
	if len(r.GetMutableParameters()) > 0 {
		return nil, status.Error(codes.InvalidArgument, "the driver has no mutable parameters")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	id := identify("vol", r.GetName())
	source := r.GetVolumeContentSource()
	wanted := volume{ID: id, Name: r.GetName(), Source: sourceID(source)}
	if old, err := d.volumes.get(id); err != nil {
		return nil, err
	} else if old != nil {
		if !fits(old.Capacity, r.GetCapacityRange()) || old.Source != wanted.Source {
			return nil, status.Errorf(codes.AlreadyExists, "volume %s is there with another size or source", r.GetName())
		}
		return &csi.CreateVolumeResponse{Volume: old.say()}, nil
	}
	from, least, err := d.source(source)
	if err != nil {
		return nil, err
	}
	if wanted.Capacity, err = d.capacity(r.GetCapacityRange(), least); err != nil {
		return nil, err
	}
	if from == "" {
		err = d.pool.create(d.volumePath(id), wanted.Capacity)
	} else {
		err = d.pool.copy(from, d.volumePath(id), wanted.Capacity)
	}
	if err != nil {
		return nil, err
	}
	if err := d.volumes.put(id, wanted); err != nil {
		return nil, err
	}
	return &csi.CreateVolumeResponse{Volume: wanted.say()}, nil
}

// say is the volume as callers see it.
func (v *volume) say() *csi.Volume {
	said := &csi.Volume{VolumeId: v.ID, CapacityBytes: v.Capacity}
	switch {
	case strings.HasPrefix(v.Source, "snap-"):
		said.ContentSource = &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{
			Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: v.Source},
		}}
	case v.Source != "":
		said.ContentSource = &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Volume{
			Volume: &csi.VolumeContentSource_VolumeSource{VolumeId: v.Source},
		}}
	}
	return said
}

func sourceID(source *csi.VolumeContentSource) string {
	return source.GetSnapshot().GetSnapshotId() + source.GetVolume().GetVolumeId() // one of them
}

// source finds the files that a volume is to begin with, and their volume's size.
func (d *driver) source(source *csi.VolumeContentSource) (path string, capacity int64, err error) {
	switch {
	case source == nil:
		return "", 0, nil
	case source.GetSnapshot() != nil:
		id := source.GetSnapshot().GetSnapshotId()
		s, err := d.snapshots.get(id)
		if err != nil {
			return "", 0, err
		}
		if s == nil {
			return "", 0, status.Errorf(codes.NotFound, "no snapshot %q", id)
		}
		ready, err := d.faults.ready(s)
		if err == nil && !ready {
			err = status.Errorf(codes.Unavailable, "snapshot %s is not ready yet", id)
		}
		return d.snapshotPath(id), s.Capacity, err
	case source.GetVolume() != nil:
		id := source.GetVolume().GetVolumeId()
		v, err := d.volumes.get(id)
		if err != nil {
			return "", 0, err
		}
		if v == nil {
			return "", 0, status.Errorf(codes.NotFound, "no volume %q", id)
		}
		return d.volumePath(id), v.Capacity, nil
	}
	return "", 0, status.Error(codes.InvalidArgument, "the content source is of no known kind")
}

// capacity chooses a size in a range that may be open at both ends.
func (d *driver) capacity(r *csi.CapacityRange, least int64) (int64, error) {
	required, limit := r.GetRequiredBytes(), r.GetLimitBytes()
	if required < 0 || limit < 0 || (limit > 0 && limit < required) {
		return 0, status.Errorf(codes.InvalidArgument, "%d to %d bytes make no range", required, limit)
	}
	size := required
	if size == 0 {
		size = max(defaultCapacity, least)
		if limit > 0 {
			size = min(size, limit)
		}
	}
	if size < least {
		return 0, status.Errorf(codes.OutOfRange, "%d bytes are less than the %d of the source", size, least)
	}
	total, _, err := d.pool.space()
	if err == nil && size > total {
		err = status.Errorf(codes.OutOfRange, "%d bytes are more than the whole pool of %d", size, total)
	}
	return size, err
}

// fits says whether a volume that is there has a size that is asked for.
func fits(capacity int64, r *csi.CapacityRange) bool {
	return capacity >= r.GetRequiredBytes() && (r.GetLimitBytes() == 0 || capacity <= r.GetLimitBytes())
}

func (d *driver) DeleteVolume(_ context.Context, r *csi.DeleteVolumeRequest) (*csi.DeleteVolumeResponse, error) {
	id := r.GetVolumeId()
	if id == "" {
		return nil, status.Error(codes.InvalidArgument, "the volume's id is missing")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !valid.MatchString(id) {
		return &csi.DeleteVolumeResponse{}, nil // none of ours, so it is gone
	}
	if places, err := mounts(d.volumePath(id)); err != nil {
		return nil, err
	} else if len(places) > 0 {
		return nil, status.Errorf(codes.FailedPrecondition, "volume %s is mounted on %s", id, strings.Join(places, " "))
	}
	if err := d.volumes.remove(id); err != nil {
		return nil, err
	}
	return &csi.DeleteVolumeResponse{}, d.pool.remove(d.volumePath(id))
}

func (d *driver) ValidateVolumeCapabilities(_ context.Context, r *csi.ValidateVolumeCapabilitiesRequest) (*csi.ValidateVolumeCapabilitiesResponse, error) {
	if r.GetVolumeId() == "" || len(r.GetVolumeCapabilities()) == 0 {
		return nil, status.Error(codes.InvalidArgument, "the volume's id or capabilities are missing")
	}
	if v, err := d.volumes.get(r.GetVolumeId()); err != nil {
		return nil, err
	} else if v == nil {
		return nil, status.Errorf(codes.NotFound, "no volume %q", r.GetVolumeId())
	}
	if err := mountable(r.GetVolumeCapabilities()...); err != nil {
		return &csi.ValidateVolumeCapabilitiesResponse{Message: err.Error()}, nil
	}
	return &csi.ValidateVolumeCapabilitiesResponse{Confirmed: &csi.ValidateVolumeCapabilitiesResponse_Confirmed{
		VolumeContext: r.GetVolumeContext(), VolumeCapabilities: r.GetVolumeCapabilities(), Parameters: r.GetParameters(),
	}}, nil
}

func (d *driver) ListVolumes(_ context.Context, r *csi.ListVolumesRequest) (*csi.ListVolumesResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	all, err := d.volumes.list()
	if err != nil {
		return nil, err
	}
	all, next, err := page(all, func(v *volume) string { return v.ID }, r.GetStartingToken(), r.GetMaxEntries())
	if err != nil {
		return nil, err
	}
	response := &csi.ListVolumesResponse{NextToken: next}
	for _, v := range all {
		response.Entries = append(response.Entries, &csi.ListVolumesResponse_Entry{Volume: v.say()})
	}
	return response, nil
}

// page cuts a part out of a sorted list. A token is the last id of the page
// before, so what comes and goes meanwhile does no harm.
func page[T any](all []T, id func(T) string, token string, limit int32) (part []T, next string, err error) {
	if limit < 0 {
		return nil, "", status.Errorf(codes.InvalidArgument, "%d entries cannot be listed", limit)
	}
	if token != "" && !valid.MatchString(token) {
		return nil, "", status.Errorf(codes.Aborted, "%q is no token of an earlier list", token)
	}
	for _, entry := range all {
		if id(entry) <= token {
			continue
		}
		if limit > 0 && len(part) == int(limit) {
			return part, id(part[len(part)-1]), nil
		}
		part = append(part, entry)
	}
	return part, "", nil
}

func (d *driver) GetCapacity(context.Context, *csi.GetCapacityRequest) (*csi.GetCapacityResponse, error) {
	_, free, err := d.pool.space()
	return &csi.GetCapacityResponse{AvailableCapacity: free}, err
}

// mountable says no to what is not a folder, or asks for what the driver has not.
func mountable(capabilities ...*csi.VolumeCapability) error {
	if len(capabilities) == 0 {
		return status.Error(codes.InvalidArgument, "the volume's capabilities are missing")
	}
	for _, c := range capabilities {
		mount := c.GetMount()
		switch {
		case mount == nil:
			return status.Error(codes.InvalidArgument, "volumes are folders, not block devices")
		case mount.GetFsType() != "" && mount.GetFsType() != "btrfs":
			return status.Errorf(codes.InvalidArgument, "file system %q is not to be had: leave fsType out", mount.GetFsType())
		case len(mount.GetMountFlags()) > 0:
			return status.Errorf(codes.InvalidArgument, "mount options %q are not supported", mount.GetMountFlags())
		case c.GetAccessMode().GetMode() == csi.VolumeCapability_AccessMode_UNKNOWN:
			return status.Error(codes.InvalidArgument, "the access mode is missing")
		}
	}
	return nil
}

// noParameters lets pass only those that the sidecars add.
func noParameters(parameters map[string]string) error {
	for name := range parameters {
		if !strings.HasPrefix(name, "csi.storage.k8s.io/") {
			return status.Errorf(codes.InvalidArgument, "the driver has no parameter %q", name)
		}
	}
	return nil
}
