package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"
)

const (
	volumeCount = 5
	volumesPath = "/api/v1/persistentvolumes"
	classesPath = "/apis/storage.k8s.io/v1/storageclasses"
)

// offerVolumes makes the default storage class and the volumes that it has to
// give. A provisioner would be one program more; a few folders do for tests.
func (s *supervisor) offerVolumes(api *client) error {
	class, err := s.fill("storageclass.yaml")
	if err != nil {
		return err
	}
	if err := api.apply(classesPath+"/local", class); err != nil {
		return err
	}
	for i := range volumeCount {
		name := fmt.Sprintf("pv%d", i+1)
		path := s.path("volumes", name)
		if err := os.MkdirAll(path, 0o755); err != nil {
			return err
		}
		volume, err := embedded.ReadFile("config/volume.yaml")
		if err != nil {
			return err
		}
		if err := api.apply(volumesPath+"/"+name, fmt.Sprintf(string(volume), name, path)); err != nil {
			return err
		}
	}
	s.stage("%d volumes are there", volumeCount)
	return nil
}

// recycleVolumes empties released volumes and offers them again, or a cluster
// that serves many tests would run out of them.
func (s *supervisor) recycleVolumes(api *client) {
	for ; ; time.Sleep(time.Second) {
		var list struct {
			Items []struct {
				Metadata struct{ Name string }
				Spec     struct{ Local struct{ Path string } }
				Status   struct{ Phase string }
			}
		}
		if api.get(volumesPath, &list) != nil {
			continue // next time
		}
		for _, volume := range list.Items {
			name, path := volume.Metadata.Name, volume.Spec.Local.Path
			if volume.Status.Phase != "Released" || path != s.path("volumes", name) {
				continue
			}
			if err := empty(path); err != nil {
				s.stage("empty volume %s: %v", name, err)
				continue
			}
			if err := api.merge(volumesPath+"/"+name, `{"spec":{"claimRef":null}}`); err != nil {
				s.stage("offer volume %s again: %v", name, err)
			}
		}
	}
}

// empty removes what is in a folder, but not the folder: pods may still have it
// mounted, and the next one is to find it as it was made.
func empty(path string) error {
	entries, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if err := os.RemoveAll(filepath.Join(path, entry.Name())); err != nil {
			return err
		}
	}
	if err := os.Chown(path, 0, 0); err != nil {
		return err
	}
	return os.Chmod(path, 0o755)
}
