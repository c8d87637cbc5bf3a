package main

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

type options struct {
	Level       string
	Hosts       []hostName
	AuditPolicy string
	Timeout     time.Duration
}

// up starts the supervisor of the cluster in a folder and returns when the
// cluster is ready to use, or leaves nothing running.
func up(dir string, opts options) (err error) {
	if err := requirements(opts.Level); err != nil {
		return err
	}
	c, err := prepare(dir, opts)
	if err != nil {
		return err
	}
	pidFile, err := os.OpenFile(c.path("supervisor.pid"), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if errors.Is(err, fs.ErrExist) {
		if p, _ := c.supervisor(); p != nil && p.alive() {
			return fmt.Errorf("the cluster in %s is up already", dir)
		}
		return fmt.Errorf("the supervisor of the cluster in %s has died%s: run cluster down %[1]s first", dir, c.lastFailure())
	}
	if err != nil {
		return err
	}
	defer pidFile.Close()
	var s *starting
	defer func() {
		if err == nil {
			return
		}
		// Unless cluster down has been here meanwhile, and perhaps another up.
		if p, _ := c.supervisor(); p != nil && (s == nil || p.pid == 0 || p.pid == s.pid) {
			err = errors.Join(err, c.takeDown())
		}
	}()
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	if err := c.save(); err != nil {
		return err
	}
	os.Remove(c.path("failure"))

	s, err = c.startSupervisor()
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(pidFile, "%d %s\n", s.pid, startTime(s.pid)); err != nil {
		return err
	}
	if c.Level == "node" {
		if err := c.connect(s.pid); err != nil {
			return err
		}
		if err := c.save(); err != nil {
			return err
		}
	}
	if err := s.release(); err != nil {
		return err
	}
	return s.wait(c, opts.Timeout, stop)
}

// requirements says what the machine lacks, before anything is started.
func requirements(level string) error {
	names := []string{"etcd", "kube-apiserver", "kubectl"}
	if level == "node" {
		if os.Geteuid() != 0 {
			return errors.New("--level node makes namespaces, mounts and network links: run it as root, or use --level api")
		}
		var missing []string
		for _, name := range []string{"containerd", "runc", "nft", "ip", "busybox", "nsenter", "/usr/lib/cni/ptp", "/usr/lib/cni/loopback"} {
			if _, err := exec.LookPath(name); err != nil {
				missing = append(missing, name)
			}
		}
		if len(missing) > 0 {
			return fmt.Errorf("not installed: %s: run tests/cluster/packages.sh", strings.Join(missing, ", "))
		}
		names = append(names, "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "coredns")
	}
	for _, name := range names {
		if _, err := binary(level, name); err != nil {
			return err
		}
	}
	return nil
}

// prepare makes the folder, or takes up the cluster that an earlier run left.
func prepare(dir string, opts options) (*cluster, error) {
	c, err := read(dir)
	if err != nil {
		c = newCluster(dir, opts.Level)
	}
	if c.Level != opts.Level || c.Dir != dir {
		return nil, fmt.Errorf("%s holds a cluster of level %s that was made as %s: remove the folder, or choose another", dir, c.Level, c.Dir)
	}
	c.Hosts = opts.Hosts
	if c.Level == "api" {
		if err := c.choosePorts(); err != nil {
			return nil, err
		}
	}
	for _, sub := range []string{"log", "config", "images"} {
		if err := os.MkdirAll(c.path(sub), 0o755); err != nil {
			return nil, err
		}
	}
	policy, err := embedded.ReadFile("config/audit-policy.yaml")
	if opts.AuditPolicy != "" {
		policy, err = os.ReadFile(opts.AuditPolicy)
	}
	if err != nil {
		return nil, err
	}
	return c, os.WriteFile(c.path("config", "audit-policy.yaml"), policy, 0o644)
}

// starting is a supervisor that is not ready yet, seen from outside.
type starting struct {
	pid      int
	toChild  *os.File
	messages chan string // closed when the supervisor ended
}

// startSupervisor re-executes this program as the supervisor. On a node it is
// the first process of a pid namespace: when it is gone, however it went, the
// kernel has ended every process and removed every mount and link in there.
func (c *cluster) startSupervisor() (*starting, error) {
	log, err := os.Create(c.logFile("supervisor"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	goRead, goWrite, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer goRead.Close()
	saidRead, saidWrite, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer saidWrite.Close()
	cmd := exec.Command("/proc/self/exe", "supervise", c.Dir)
	cmd.Args[0] = "cluster"
	cmd.Dir = "/"
	cmd.Env = environment()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{goRead, saidWrite}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if c.Level == "node" {
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWUTS
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the supervisor: %w", err)
	}
	s := &starting{pid: cmd.Process.Pid, toChild: goWrite, messages: make(chan string)}
	go func() {
		for lines := bufio.NewScanner(saidRead); lines.Scan(); {
			s.messages <- lines.Text()
		}
		cmd.Wait()
		close(s.messages)
	}()
	return s, nil
}

// release lets the supervisor go on: its network is there.
func (s *starting) release() error {
	defer s.toChild.Close()
	_, err := s.toChild.WriteString("go\n")
	return err
}

// wait passes on what the supervisor says until it is ready or has ended.
func (s *starting) wait(c *cluster, timeout time.Duration, stop <-chan os.Signal) error {
	deadline := time.After(timeout)
	last := "it started"
	for {
		select {
		case message, ok := <-s.messages:
			if !ok {
				if failure, err := os.ReadFile(c.path("failure")); err == nil {
					return errors.New(strings.TrimSpace(string(failure)))
				}
				return fmt.Errorf("the supervisor was killed%s", tail(c.logFile("supervisor")))
			}
			if message == "ready" {
				fmt.Printf("ready: export KUBECONFIG=%s\n", c.path("kubeconfig"))
				return nil
			}
			fmt.Println(message)
			last = strings.TrimSpace(message)
		case <-deadline:
			return fmt.Errorf("not ready after %v; the last that happened: %s; logs are in %s", timeout, last, c.path("log"))
		case sig := <-stop:
			return fmt.Errorf("stopped by %v", sig)
		}
	}
}

// tail says where a log is and how it ends.
func tail(path string) string {
	data, err := os.ReadFile(path)
	if err != nil || len(data) == 0 {
		return ": see " + path
	}
	lines := strings.Split(strings.TrimRight(string(data), "\n"), "\n")
	lines = lines[max(0, len(lines)-8):]
	return fmt.Sprintf(": see %s, which ends:\n  %s", path, strings.Join(lines, "\n  "))
}

// binary finds a component. Tests of the API may bring their own, in the folder
// that controller tests everywhere call KUBEBUILDER_ASSETS.
func binary(level, name string) (string, error) {
	if assets := os.Getenv("KUBEBUILDER_ASSETS"); assets != "" && level == "api" {
		if path := filepath.Join(assets, name); executable(path) {
			return path, nil
		}
	}
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	folder, build := "kube", "tests/cluster/build.sh" // which makes the others too
	switch {
	case name == "coredns":
		folder = "dns"
	case name == "snapshot-controller":
		folder, build = "csi-snapshotter", build+" --csi"
	case slices.Contains(csiParts, name):
		folder, build = name, build+" --csi"
	}
	path := filepath.Join(filepath.Dir(self), folder, name)
	if !executable(path) {
		return "", fmt.Errorf("%s is not built: run %s", name, build)
	}
	return path, nil
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}
