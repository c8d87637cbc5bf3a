package main

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// A record is the truth: it is written when the data are complete and removed
// before they are. Data without a record are the rest of something interrupted.

// volume is what is known of a volume.
type volume struct {
	ID       string
	Name     string
	Capacity int64
	Source   string `json:",omitempty"` // the volume or snapshot that it began as
}

// snapshot is what is known of a snapshot.
type snapshot struct {
	ID       string
	Name     string
	Volume   string
	Capacity int64 // of that volume
	Size     int64 // what is said of it, which a fault may have changed
	Taken    time.Time
	Ready    time.Time
	Held     bool // not ready while the fault that held it is on
}

// identify makes the id for a name: the same one each time, so a call that is
// repeated finds what the first one made, and safe as a file name.
func identify(kind, name string) string {
	return fmt.Sprintf("%s-%x", kind, sha256.Sum256([]byte(name)))[:len(kind)+1+32]
}

var valid = regexp.MustCompile(`^(vol|snap)-[0-9a-f]{32}$`)

// shelf is a folder of records, each in a file named after its id.
type shelf[T any] struct{ dir string }

func (s shelf[T]) file(id string) string { return filepath.Join(s.dir, id+".json") }

// get returns nil when there is no such record.
func (s shelf[T]) get(id string) (*T, error) {
	if !valid.MatchString(id) {
		return nil, nil
	}
	data, err := os.ReadFile(s.file(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	record := new(T)
	if err := json.Unmarshal(data, record); err != nil {
		return nil, fmt.Errorf("read %s: %w", s.file(id), err)
	}
	return record, nil
}

func (s shelf[T]) put(id string, record T) error {
	data, err := json.Marshal(record)
	if err != nil {
		return err
	}
	return replace(s.file(id), data)
}

func (s shelf[T]) remove(id string) error {
	if err := os.Remove(s.file(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return syncDir(s.dir)
}

// ids are sorted.
func (s shelf[T]) ids() ([]string, error) {
	entries, err := os.ReadDir(s.dir)
	var ids []string
	for _, entry := range entries {
		if id, ok := strings.CutSuffix(entry.Name(), ".json"); ok {
			ids = append(ids, id)
		}
	}
	return ids, err
}

func (s shelf[T]) list() ([]*T, error) {
	ids, err := s.ids()
	if err != nil {
		return nil, err
	}
	var records []*T
	for _, id := range ids {
		record, err := s.get(id)
		if err != nil {
			return nil, err
		}
		records = append(records, record)
	}
	return records, nil
}

// replace writes a file as a whole or not at all.
func replace(path string, data []byte) error {
	file, err := os.Create(path + ".new")
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// open takes up what an earlier run left in the pool, and clears away what it
// did not finish.
func (d *driver) open() error {
	d.volumes.dir = filepath.Join(d.pool.dir, "records", "volumes")
	d.snapshots.dir = filepath.Join(d.pool.dir, "records", "snapshots")
	for _, kind := range []struct {
		folder string
		ids    func() ([]string, error)
	}{{"volumes", d.volumes.ids}, {"snapshots", d.snapshots.ids}} {
		if err := errors.Join(
			os.MkdirAll(filepath.Join(d.pool.dir, "records", kind.folder), 0o755),
			os.MkdirAll(filepath.Join(d.pool.dir, kind.folder), 0o755),
		); err != nil {
			return err
		}
		ids, err := kind.ids()
		if err != nil {
			return err
		}
		known := map[string]bool{}
		for _, id := range ids {
			known[id] = true
		}
		found, err := os.ReadDir(filepath.Join(d.pool.dir, kind.folder))
		if err != nil {
			return err
		}
		for _, entry := range found {
			if !known[entry.Name()] {
				log.Printf("remove unfinished %s/%s", kind.folder, entry.Name())
				if err := d.pool.remove(filepath.Join(d.pool.dir, kind.folder, entry.Name())); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// volumePath is where a volume's files are.
func (d *driver) volumePath(id string) string { return filepath.Join(d.pool.dir, "volumes", id) }

func (d *driver) snapshotPath(id string) string { return filepath.Join(d.pool.dir, "snapshots", id) }
