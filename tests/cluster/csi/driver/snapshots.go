package main

import (
	"context"
	"slices"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
)

func (d *driver) CreateSnapshot(_ context.Context, r *csi.CreateSnapshotRequest) (*csi.CreateSnapshotResponse, error) {
	if r.GetName() == "" || r.GetSourceVolumeId() == "" {
		return nil, status.Error(codes.InvalidArgument, "the name or the source volume's id is missing")
	}
	if err := noParameters(r.GetParameters()); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	id := identify("snap", r.GetName())
	taken, err := d.snapshots.get(id)
	if err != nil {
		return nil, err
	}
	if taken == nil {
		if taken, err = d.take(id, r.GetName(), r.GetSourceVolumeId()); err != nil {
			return nil, err
		}
	}
	if taken.Volume != r.GetSourceVolumeId() {
		return nil, status.Errorf(codes.AlreadyExists, "snapshot %s is there, of volume %s", r.GetName(), taken.Volume)
	}
	said, err := d.say(taken)
	return &csi.CreateSnapshotResponse{Snapshot: said}, err
}

func (d *driver) take(id, name, of string) (*snapshot, error) {
	v, err := d.volumes.get(of)
	if err != nil {
		return nil, err
	}
	if v == nil {
		return nil, status.Errorf(codes.NotFound, "no volume %q", of)
	}
	s := &snapshot{ID: id, Name: name, Volume: of, Capacity: v.Capacity, Size: v.Capacity, Taken: time.Now()}
	if err := d.faults.apply(s); err != nil {
		return nil, err
	}
	if err := d.pool.freeze(d.volumePath(of), d.snapshotPath(id)); err != nil {
		return nil, err
	}
	return s, d.snapshots.put(id, *s)
}

// say is the snapshot as callers see it.
func (d *driver) say(s *snapshot) (*csi.Snapshot, error) {
	ready, err := d.faults.ready(s)
	return &csi.Snapshot{
		SnapshotId: s.ID, SourceVolumeId: s.Volume, SizeBytes: s.Size,
		CreationTime: timestamppb.New(s.Taken), ReadyToUse: ready,
	}, err
}

func (d *driver) DeleteSnapshot(_ context.Context, r *csi.DeleteSnapshotRequest) (*csi.DeleteSnapshotResponse, error) {
	id := r.GetSnapshotId()
	if id == "" {
		return nil, status.Error(codes.InvalidArgument, "the snapshot's id is missing")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !valid.MatchString(id) {
		return &csi.DeleteSnapshotResponse{}, nil // none of ours, so it is gone
	}
	if err := d.snapshots.remove(id); err != nil {
		return nil, err
	}
	return &csi.DeleteSnapshotResponse{}, d.pool.remove(d.snapshotPath(id))
}

func (d *driver) GetSnapshot(_ context.Context, r *csi.GetSnapshotRequest) (*csi.GetSnapshotResponse, error) {
	if r.GetSnapshotId() == "" {
		return nil, status.Error(codes.InvalidArgument, "the snapshot's id is missing")
	}
	s, err := d.snapshots.get(r.GetSnapshotId())
	if err != nil {
		return nil, err
	}
	if s == nil {
		return nil, status.Errorf(codes.NotFound, "no snapshot %q", r.GetSnapshotId())
	}
	said, err := d.say(s)
	return &csi.GetSnapshotResponse{Snapshot: said}, err
}

func (d *driver) ListSnapshots(_ context.Context, r *csi.ListSnapshotsRequest) (*csi.ListSnapshotsResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	all, err := d.snapshots.list()
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(s *snapshot) bool {
		return (r.GetSnapshotId() != "" && s.ID != r.GetSnapshotId()) ||
			(r.GetSourceVolumeId() != "" && s.Volume != r.GetSourceVolumeId())
	})
	all, next, err := page(all, func(s *snapshot) string { return s.ID }, r.GetStartingToken(), r.GetMaxEntries())
	if err != nil {
		return nil, err
	}
	response := &csi.ListSnapshotsResponse{NextToken: next}
	for _, s := range all {
		said, err := d.say(s)
		if err != nil {
			return nil, err
		}
		response.Entries = append(response.Entries, &csi.ListSnapshotsResponse_Entry{Snapshot: said})
	}
	return response, nil
}
