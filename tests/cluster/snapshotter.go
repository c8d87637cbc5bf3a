package main

import "syscall"

// snapshotter is containerd's way to stack layers: overlayfs, unless the folder
// is on an overlay itself (in a container, say), where that does not work.
func (c *cluster) snapshotter() string {
	const overlayMagic = 0x794c7630
	var fs syscall.Statfs_t
	if err := syscall.Statfs(c.Dir, &fs); err == nil && fs.Type == overlayMagic {
		return "native"
	}
	return "overlayfs"
}
