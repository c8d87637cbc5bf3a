package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// pool holds the data of volumes and snapshots, each in a folder: a subvolume
// where the pool is a btrfs, so that a copy takes no time and no space.
type pool struct {
	dir   string
	btrfs bool
}

// create makes an empty folder that takes limit bytes.
func (p *pool) create(path string, limit int64) error {
	if err := p.remove(path); err != nil {
		return err
	}
	if !p.btrfs {
		return os.Mkdir(path, 0o755)
	}
	if _, err := run("btrfs", "subvolume", "create", path); err != nil {
		return err
	}
	return p.limit(path, limit)
}

// copy makes a folder with the same files that takes limit bytes.
func (p *pool) copy(from, to string, limit int64) error {
	if err := p.remove(to); err != nil {
		return err
	}
	if !p.btrfs {
		_, err := run("cp", "-a", "--reflink=auto", "--no-target-directory", from, to)
		return err
	}
	if _, err := run("btrfs", "subvolume", "snapshot", from, to); err != nil {
		return err
	}
	return p.limit(to, limit)
}

// freeze makes a folder with the same files that nobody is to change.
func (p *pool) freeze(from, to string) error {
	if !p.btrfs {
		return p.copy(from, to, 0)
	}
	if err := p.remove(to); err != nil {
		return err
	}
	_, err := run("btrfs", "subvolume", "snapshot", "-r", from, to)
	return err
}

func (p *pool) limit(path string, bytes int64) error {
	_, err := run("btrfs", "qgroup", "limit", strconv.FormatInt(bytes, 10), path)
	return err
}

func (p *pool) remove(path string) error {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if !p.btrfs {
		return os.RemoveAll(path)
	}
	_, err := run("btrfs", "subvolume", "delete", path)
	return err
}

// used is how much of its limit a folder has taken.
func (p *pool) used(path string) (int64, error) {
	if !p.btrfs {
		return usage(path)
	}
	out, err := run("btrfs", "qgroup", "show", "--raw", "-f", "--sync", path)
	if err != nil {
		return 0, err
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	fields := strings.Fields(lines[len(lines)-1]) // id, referenced, exclusive
	if len(fields) < 2 {
		return 0, fmt.Errorf("btrfs qgroup show %s: unexpected %q", path, out)
	}
	return strconv.ParseInt(fields[1], 10, 64)
}

// usage adds up the blocks of all files.
func usage(path string) (int64, error) {
	var bytes int64
	err := filepath.WalkDir(path, func(_ string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // removed meanwhile
		}
		if err != nil {
			return err
		}
		if info, err := entry.Info(); err == nil {
			bytes += info.Sys().(*syscall.Stat_t).Blocks * 512
		}
		return nil
	})
	return bytes, err
}

// space is what the pool as a whole has.
func (p *pool) space() (total, free int64, err error) {
	var stat unix.Statfs_t
	if err := unix.Statfs(p.dir, &stat); err != nil {
		return 0, 0, fmt.Errorf("statfs %s: %w", p.dir, err)
	}
	return int64(stat.Blocks) * stat.Bsize, int64(stat.Bavail) * stat.Bsize, nil
}

func run(name string, args ...string) (string, error) {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}
