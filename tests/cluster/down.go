package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// down ends the cluster in a folder; it may be up, dead or down already.
func down(dir string) error {
	c, err := read(dir)
	if err != nil {
		return err
	}
	return c.takeDown()
}

// takeDown ends the supervisor and removes what outlives it, so that only the
// folder remains.
func (c *cluster) takeDown() error {
	p, err := c.supervisor()
	if err != nil {
		return err
	}
	if p != nil && p.alive() {
		if err := syscall.Kill(p.pid, syscall.SIGTERM); err != nil && err != syscall.ESRCH {
			return fmt.Errorf("end the supervisor (process %d): %w", p.pid, err)
		}
		if !poll(time.Minute, func() bool { return !p.alive() }) {
			syscall.Kill(p.pid, syscall.SIGKILL)
		}
		if !poll(5*time.Minute, func() bool { return !p.alive() }) {
			return fmt.Errorf("the supervisor (process %d) does not end: see %s", p.pid, c.logFile("supervisor"))
		}
	}
	if c.Level == "node" {
		if err := errors.Join(c.disconnect(), c.removeCgroups(), c.releasePool()); err != nil {
			return err
		}
	}
	for _, name := range []string{"kubeconfig", "host-ip", "node-ip", "csi/ready", "supervisor.pid"} {
		if err := os.Remove(c.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// disconnect removes the network link, and with it the routes. The kernel does
// so too, in its own time, once the node's network namespace is gone.
func (c *cluster) disconnect() error {
	there := func() bool {
		_, err := os.Stat("/sys/class/net/" + c.link())
		return err == nil
	}
	var out []byte
	if !poll(time.Minute, func() bool {
		if there() {
			out, _ = exec.Command("ip", "link", "delete", c.link()).CombinedOutput()
		}
		return !there()
	}) {
		return fmt.Errorf("ip link delete %s: %s", c.link(), out)
	}
	return nil
}

// removeCgroups removes the pods' cgroups; the kernel allows it when the last
// of their processes is really gone.
func (c *cluster) removeCgroups() error {
	var left []string
	if !poll(2*time.Minute, func() bool {
		left = nil
		for _, root := range c.cgroups() {
			removeTree(root)
			if _, err := os.Stat(root); err == nil {
				left = append(left, root)
			}
		}
		return len(left) == 0
	}) {
		return fmt.Errorf("cgroups still in use: %s", strings.Join(left, " "))
	}
	return nil
}

// removeTree removes folders, leaves first; a cgroup's files go with it.
func removeTree(root string) {
	var dirs []string
	filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			dirs = append(dirs, path)
		}
		return nil
	})
	for i := len(dirs) - 1; i >= 0; i-- {
		syscall.Rmdir(dirs[i])
	}
}

func status(dir string) error {
	c, p, err := running(dir)
	if err != nil {
		return err
	}
	fmt.Printf("up: level %s, supervisor %d\nKUBECONFIG=%s\nserver %s\n", c.Level, p.pid, c.path("kubeconfig"), c.Server)
	if c.Level == "node" {
		fmt.Printf("host %s\nnode %s\npods %s\nservices %s\n", c.HostIP, c.NodeIP, c.PodCIDR, c.Services)
	}
	return nil
}

// poll tries until it succeeds or the time is up.
func poll(limit time.Duration, try func() bool) bool {
	for deadline := time.Now().Add(limit); !try(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}
