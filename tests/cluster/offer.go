package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// poolSize is nominal: the file takes what is written to it.
const poolSize = 64 << 30

// offerCSI starts CSI, when it is wanted.
func (s *supervisor) offerCSI(api *client) error {
	until(func() bool { return s.csiKind() != "" })
	for _, name := range []string{"running", "stop"} { // of an earlier run
		if err := errors.Join(os.RemoveAll(s.path("csi", name)), os.MkdirAll(s.path("csi", name), 0o755)); err != nil {
			return err
		}
	}
	if err := errors.Join(os.MkdirAll(s.path("csi", "faults"), 0o755), os.MkdirAll(s.path("csi", "pool"), 0o755)); err != nil {
		return err
	}
	if s.csiKind() == "btrfs" {
		if err := s.mountPool(); err != nil {
			return err
		}
	}
	if err := s.offerClasses(api); err != nil {
		return err
	}
	for _, name := range csiParts {
		path, err := binary(s.Level, name)
		if err != nil {
			return err
		}
		go s.keep(name, path, s.csiFlags(name)...)
	}
	until(func() bool { return s.knowsDriver(api) })
	s.stage("CSI is ready, with volumes that are %s", s.csiKind())
	return os.WriteFile(s.path("csi", "ready"), nil, 0o644)
}

// mountPool mounts the file with the volumes. Its loop device goes with the mount.
func (s *supervisor) mountPool() error {
	image, fresh := s.path("csi", "pool.img"), s.path("csi", "pool.img.new")
	made := exists(image)
	if !made {
		if err := errors.Join(os.WriteFile(fresh, nil, 0o600), os.Truncate(fresh, poolSize)); err != nil {
			return err
		}
		if err := s.finish("csi-pool", "mkfs.btrfs", "--quiet", "--nodiscard", fresh); err != nil {
			return err
		}
		if err := os.Rename(fresh, image); err != nil {
			return err
		}
	}
	if err := s.finish("csi-pool", "mount", "-t", "btrfs", "-o", "loop", image, s.path("csi", "pool")); err != nil {
		return err
	}
	// Without effect when they are on already.
	return s.finish("csi-pool", "btrfs", "quota", "enable", s.path("csi", "pool"))
}

// offerClasses makes the snapshot API and the objects that name the driver.
func (s *supervisor) offerClasses(api *client) error {
	apply := func(path, file string, values ...any) error {
		text, err := s.fill(file)
		if err != nil {
			return err
		}
		if len(values) > 0 {
			text = fmt.Sprintf(text, values...)
			path += "/" + values[0].(string)
		}
		return api.apply(path, text)
	}
	path, err := binary(s.Level, "snapshot-controller")
	if err != nil {
		return err
	}
	crds, err := filepath.Glob(filepath.Join(filepath.Dir(path), "crds", "*.yaml"))
	if err != nil {
		return err
	}
	for _, file := range crds {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		group, plural, _ := strings.Cut(strings.TrimSuffix(filepath.Base(file), ".yaml"), "_")
		if err := api.apply("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/"+plural+"."+group, string(text)); err != nil {
			return err
		}
	}
	if err := errors.Join(
		apply("/apis/storage.k8s.io/v1/csidrivers/"+csiName, "csi-driver.yaml"),
		apply(classesPath, "csi-storageclass.yaml", "csi", "Immediate"),
		apply(classesPath, "csi-storageclass.yaml", "csi-wait", "WaitForFirstConsumer"),
	); err != nil {
		return err
	}
	const snapshotClasses = "/apis/snapshot.storage.k8s.io/v1/volumesnapshotclasses"
	until(func() bool { return api.get(snapshotClasses, nil) == nil })
	return errors.Join(
		apply(snapshotClasses, "csi-snapshotclass.yaml", "csi", "Delete"),
		apply(snapshotClasses, "csi-snapshotclass.yaml", "csi-retain", "Retain"),
	)
}

// knowsDriver says whether the kubelet has found the driver.
func (s *supervisor) knowsDriver(api *client) bool {
	var node struct {
		Spec struct{ Drivers []struct{ Name string } }
	}
	if api.get("/apis/storage.k8s.io/v1/csinodes/node", &node) != nil {
		return false
	}
	return slices.ContainsFunc(node.Spec.Drivers, func(d struct{ Name string }) bool { return d.Name == csiName })
}

// keep runs a part that may be stopped, and starts it again when it ends, as a
// kubelet would: sidecars end when their driver does, and count on it.
func (s *supervisor) keep(name, path string, flags ...string) {
	stopped := func() bool { return exists(s.path("csi", "stop", name)) }
	sign := s.path("csi", "running", name)
	for {
		until(func() bool { return !stopped() })
		ended := make(chan syscall.WaitStatus, 1)
		pid, err := s.spawn(name, func(status syscall.WaitStatus) { ended <- status }, path, flags...)
		if err != nil {
			s.stage("%v", err)
			time.Sleep(time.Second)
			continue
		}
		os.WriteFile(sign, fmt.Appendln(nil, pid), 0o644)
		for over := false; !over; {
			select {
			case status := <-ended:
				over = true
				os.Remove(sign)
				if !stopped() {
					s.stage("%s ended (%s) and is started again", name, describe(status))
					time.Sleep(500 * time.Millisecond)
				}
			case <-time.After(50 * time.Millisecond):
				if stopped() {
					syscall.Kill(pid, syscall.SIGKILL)
				}
			}
		}
	}
}
