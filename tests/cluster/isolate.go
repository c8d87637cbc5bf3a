package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// hidden are the folders where containerd, the kubelet and CNI keep what they
// keep, much of it in places that no flag changes. The node has its own, empty.
var hidden = []string{"/run", "/var/lib", "/var/log"}

// isolate makes the mount namespace the node's own. It needs the first process
// of a new pid namespace, before any other is started.
func (c *cluster) isolate() error {
	resolver := resolvConf()
	if err := errors.Join(
		syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""),
		// Among themselves the node's mounts are shared: the kubelet's reach containers.
		syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_SHARED, ""),
		syscall.Mount("proc", "/proc", "proc", syscall.MS_NOSUID|syscall.MS_NODEV|syscall.MS_NOEXEC, ""),
		c.hide(),
		c.freezeSysctls(),
		syscall.Sethostname([]byte("node")),
	); err != nil {
		return fmt.Errorf("isolate the node: %w", err)
	}
	return errors.Join(
		bind(c.path("containerd"), "/var/lib/containerd"),
		bind(c.path("kubelet"), "/var/lib/kubelet"),
		// Shared, but no longer with the folder: each volume would be mounted there too.
		syscall.Mount("", "/var/lib/kubelet", "", syscall.MS_PRIVATE, ""),
		syscall.Mount("", "/var/lib/kubelet", "", syscall.MS_SHARED, ""),
		bind(c.path("log", "pods"), "/var/log/pods"),
		os.MkdirAll("/var/log/containers", 0o755),
		os.MkdirAll("/run/lock", 0o1777),
		bindFile(c.path("hosts"), "/etc/hosts"),
		bindFile(c.path("config", "resolv.conf"), resolver),
	)
}

// hide puts empty folders over the hidden ones, and brings back those below
// them that the node does need: the cluster's folder and its programs.
func (c *cluster) hide() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	opened := map[string]int{}
	for _, path := range []string{c.Dir, filepath.Dir(filepath.Dir(self))} {
		for _, folder := range hidden {
			if strings.HasPrefix(path, folder+"/") {
				const oPath = 0x200000 // O_PATH, which package syscall lacks
				fd, err := syscall.Open(path, oPath|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
				if err != nil {
					return fmt.Errorf("open %s: %w", path, err)
				}
				opened[path] = fd
			}
		}
	}
	for _, folder := range hidden {
		if err := syscall.Mount("tmpfs", folder, "tmpfs", 0, "mode=0755"); err != nil {
			return fmt.Errorf("mount tmpfs on %s: %w", folder, err)
		}
	}
	for path, fd := range opened {
		if err := bind(fmt.Sprintf("/proc/self/fd/%d", fd), path); err != nil {
			return err
		}
		syscall.Close(fd)
	}
	return nil
}

// freezeSysctls lays files with the values that the kubelet wants over the
// settings of the whole machine that it would change. It finds them as it likes
// and writes none, so there is nothing to restore, however the cluster ends.
func (c *cluster) freezeSysctls() error {
	for name, value := range map[string]string{
		"vm/overcommit_memory":      "1",
		"vm/panic_on_oom":           "0",
		"kernel/panic":              "10",
		"kernel/panic_on_oops":      "1",
		"kernel/keys/root_maxkeys":  "1000000",
		"kernel/keys/root_maxbytes": "25000000",
	} {
		file := c.path("config", "sysctl", name)
		if err := errors.Join(
			os.MkdirAll(filepath.Dir(file), 0o755),
			os.WriteFile(file, []byte(value+"\n"), 0o644),
			bindFile(file, "/proc/sys/"+name),
		); err != nil {
			return err
		}
	}
	return nil
}

func bind(from, to string) error {
	if !strings.HasPrefix(from, "/proc/") {
		if err := os.MkdirAll(from, 0o755); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	if err := syscall.Mount(from, to, "", syscall.MS_BIND|syscall.MS_REC, ""); err != nil {
		return fmt.Errorf("bind %s to %s: %w", from, to, err)
	}
	return nil
}

// bindFile lays a file over another one, if that is there.
func bindFile(from, to string) error {
	err := syscall.Mount(from, to, "", syscall.MS_BIND, "")
	if err == syscall.ENOENT {
		if _, missing := os.Stat(to); errors.Is(missing, fs.ErrNotExist) {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("bind %s to %s: %w", from, to, err)
	}
	return nil
}

// resolvConf is the file that /etc/resolv.conf really is: often a link into
// /run, which is about to be hidden.
func resolvConf() string {
	const name = "/etc/resolv.conf"
	if path, err := filepath.EvalSymlinks(name); err == nil {
		return path
	}
	return name
}
