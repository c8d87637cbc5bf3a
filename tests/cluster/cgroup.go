package main

import (
	"os"
	"path/filepath"
)

const cgroupFS = "/sys/fs/cgroup"

// cgroupRoot is the cgroup, as the kubelet names it, that holds all the pods of
// this cluster and no others.
func (c *cluster) cgroupRoot() string { return "/imagecache-" + c.ID }

// cgroups are the folders of that cgroup: one in all, or with cgroup v1 one in
// each hierarchy.
func (c *cluster) cgroups() []string {
	found, _ := filepath.Glob(cgroupFS + "/*" + c.cgroupRoot())
	if path := cgroupFS + c.cgroupRoot(); isDir(path) {
		found = append(found, path)
	}
	return found
}

// makeCgroups makes them: the kubelet makes every cgroup but its topmost one.
func (c *cluster) makeCgroups() error {
	if _, err := os.Stat(cgroupFS + "/cgroup.controllers"); err == nil {
		// One by one, and without regard to errors: a controller that is not
		// there is the kubelet's to complain of.
		for _, controller := range []string{"cpuset", "cpu", "io", "memory", "hugetlb", "pids"} {
			os.WriteFile(cgroupFS+"/cgroup.subtree_control", []byte("+"+controller), 0)
		}
		return os.MkdirAll(cgroupFS+c.cgroupRoot(), 0o755)
	}
	hierarchies, err := filepath.Glob(cgroupFS + "/*/cgroup.procs")
	if err != nil {
		return err
	}
	for _, file := range hierarchies {
		parent := filepath.Dir(file)
		if info, err := os.Lstat(parent); err != nil || !info.IsDir() {
			continue // cpu and cpuacct are often links to one hierarchy
		}
		path := parent + c.cgroupRoot()
		if err := os.MkdirAll(path, 0o755); err != nil {
			return err
		}
		// A new cpuset is empty, and nothing can run in it.
		for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
			if value, err := os.ReadFile(filepath.Join(parent, name)); err == nil {
				if err := os.WriteFile(filepath.Join(path, name), value, 0); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}
