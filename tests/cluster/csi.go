package main

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// CSI is asked for with files in DIR/csi, since the supervisor, in its
// namespaces, is the one who starts it: `wanted` says where volumes are kept,
// `stop/PART` that a part is not to run. It answers with `running/PART` and `ready`.

const (
	csiName   = "csi.imagecache.test"
	csiSocket = "/var/lib/kubelet/plugins/" + csiName + "/csi.sock"
)

// csiParts are the programs, in the order of their start.
var csiParts = []string{"csi-driver", "csi-provisioner", "csi-snapshotter", "snapshot-controller"}

func csiCommand(dir string, args []string) error {
	c, p, err := running(dir)
	if err != nil {
		return err
	}
	if c.Level != "node" {
		return fmt.Errorf("the cluster in %s is of level %s and has no node: use --level node", dir, c.Level)
	}
	if os.Geteuid() != 0 {
		return errors.New("only root can give a node its storage")
	}
	if len(args) > 0 && (args[0] == "stop" || args[0] == "start") {
		return c.switchParts(p, args[0] == "stop", args[1:])
	}
	folders := false
	flags := flag.NewFlagSet("csi", flag.ContinueOnError)
	flags.Usage = func() {}
	flags.SetOutput(new(strings.Builder)) // the error says it all
	flags.BoolVar(&folders, "folders", false, "")
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("%w; see cluster --help", err)
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q; see cluster --help", flags.Arg(0))
	}
	return c.wantCSI(p, folders)
}

// wantCSI asks for CSI and waits for it.
func (c *cluster) wantCSI(p *process, folders bool) error {
	for _, name := range csiParts {
		if _, err := binary(c.Level, name); err != nil {
			return err
		}
	}
	kind := "folders"
	if !folders {
		kind = "btrfs"
		if reason := noBtrfs(); reason != "" {
			kind = "folders"
			fmt.Println("volumes are plain folders, which are copied and have no limit:", reason)
		}
	}
	if had := c.csiKind(); had == "" {
		if err := os.MkdirAll(c.path("csi"), 0o755); err != nil {
			return err
		}
		// In one step, for the supervisor is looking.
		if err := os.WriteFile(c.path("csi", "wanted.new"), []byte(kind+"\n"), 0o644); err != nil {
			return err
		}
		if err := os.Rename(c.path("csi", "wanted.new"), c.path("csi", "wanted")); err != nil {
			return err
		}
	} else if had != kind {
		return fmt.Errorf("the volumes of the cluster in %s are %s already: for another kind, use a fresh cluster", c.Dir, had)
	}
	return c.awaitCSI(p, "CSI is not ready", func() bool { return exists(c.path("csi", "ready")) })
}

// noBtrfs says why volumes cannot be btrfs subvolumes on this machine.
func noBtrfs() string {
	for _, name := range []string{"mkfs.btrfs", "btrfs"} {
		if _, err := exec.LookPath(name); err != nil {
			return name + " is not installed: run tests/cluster/packages.sh"
		}
	}
	known := func() bool {
		list, _ := os.ReadFile("/proc/filesystems")
		return slices.Contains(strings.Fields(string(list)), "btrfs")
	}
	if !known() {
		exec.Command("modprobe", "btrfs").Run()
	}
	if !known() {
		return "the kernel has no btrfs"
	}
	if !exists("/dev/loop-control") {
		return "there are no loop devices"
	}
	return ""
}

// switchParts stops parts, as hard as a crash, or starts them again.
func (c *cluster) switchParts(p *process, stop bool, names []string) error {
	if !exists(c.path("csi", "ready")) {
		return fmt.Errorf("the cluster in %s has no CSI: run cluster csi %[1]s", c.Dir)
	}
	if len(names) == 0 {
		return fmt.Errorf("name at least one of %s", strings.Join(csiParts, ", "))
	}
	for _, name := range names {
		if !slices.Contains(csiParts, name) {
			return fmt.Errorf("there is no %q: name %s", name, strings.Join(csiParts, ", "))
		}
		file := c.path("csi", "stop", name)
		if stop {
			if err := os.WriteFile(file, nil, 0o644); err != nil {
				return err
			}
		} else if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	for _, name := range names {
		if err := c.awaitCSI(p, name+" takes no notice", func() bool { return exists(c.path("csi", "running", name)) != stop }); err != nil {
			return err
		}
	}
	return nil
}

func (c *cluster) awaitCSI(p *process, complaint string, done func() bool) error {
	if poll(2*time.Minute, func() bool { return done() || !p.alive() }) && p.alive() {
		return nil
	}
	if !p.alive() {
		return fmt.Errorf("the cluster ended%s", c.lastFailure())
	}
	return fmt.Errorf("%s: see %s", complaint, c.path("log"))
}

// csiKind is btrfs or folders, or empty when nobody asked for CSI.
func (c *cluster) csiKind() string {
	kind, _ := os.ReadFile(c.path("csi", "wanted"))
	return strings.TrimSpace(string(kind))
}

// releasePool waits until the kernel has let go of the file with the volumes: it
// unmounts that when the node's mount namespace is gone, and the loop device with it.
func (c *cluster) releasePool() error {
	image := c.path("csi", "pool.img")
	if !exists(image) {
		return nil
	}
	var out []byte
	var err error
	if !poll(time.Minute, func() bool {
		out, err = exec.Command("losetup", "--associated", image).CombinedOutput()
		return err == nil && len(out) == 0
	}) {
		return fmt.Errorf("%s is still in use: losetup: %v: %s", image, err, out)
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
