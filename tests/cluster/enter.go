package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// kubectl replaces this program by kubectl with the cluster's kubeconfig.
func kubectl(dir string, args []string) error {
	c, _, err := running(dir)
	if err != nil {
		return err
	}
	path, err := binary(c.Level, "kubectl")
	if err != nil {
		return err
	}
	env := environment("KUBECONFIG=" + c.path("kubeconfig"))
	return fmt.Errorf("run %s: %w", path, syscall.Exec(path, append([]string{"kubectl"}, args...), env))
}

// environment is ours with some variables set, and without proxies: no proxy
// knows the way to the cluster.
func environment(set ...string) []string {
	name := func(variable string) string {
		name, _, _ := strings.Cut(variable, "=")
		return name
	}
	drop := []string{"http_proxy", "https_proxy", "all_proxy"}
	for _, variable := range set {
		drop = append(drop, name(variable))
	}
	kept := slices.DeleteFunc(os.Environ(), func(variable string) bool {
		return slices.Contains(drop, name(variable)) || slices.Contains(drop[:3], strings.ToLower(name(variable)))
	})
	return append(kept, set...)
}

// load imports image archives into the node's containerd. They are read out
// here, since the node does not see all of the machine's folders.
func load(dir string, archives []string) error {
	if len(archives) == 0 {
		return errors.New("name at least one image archive")
	}
	for _, archive := range archives {
		file, err := os.Open(archive)
		if err != nil {
			return err
		}
		cmd, err := inside(dir, "ctr", "--namespace=k8s.io", "images", "import", "-")
		if err != nil {
			return err
		}
		cmd.Stdin, cmd.Stdout = file, os.Stdout
		out, err := output(cmd)
		file.Close()
		if err != nil {
			return fmt.Errorf("import %s: %w: %s", archive, err, out)
		}
	}
	return nil
}

// output runs a command and returns what it complains of.
func output(cmd *exec.Cmd) (string, error) {
	file, err := os.CreateTemp("", "cluster")
	if err != nil {
		return "", err
	}
	defer file.Close()
	os.Remove(file.Name())
	cmd.Stderr = file
	err = cmd.Run()
	data, _ := os.ReadFile(fmt.Sprintf("/proc/self/fd/%d", file.Fd()))
	return string(data), err
}

// execute runs a command as the node would, with our input and output.
func execute(dir string, args []string) error {
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		return errors.New("name a command to run")
	}
	cmd, err := inside(dir, args...)
	if err != nil {
		return err
	}
	return fmt.Errorf("run %s: %w", cmd.Path, syscall.Exec(cmd.Path, cmd.Args, cmd.Env))
}

// inside is a command in the namespaces of a cluster's node.
func inside(dir string, args ...string) (*exec.Cmd, error) {
	c, p, err := running(dir)
	if err != nil {
		return nil, err
	}
	if c.Level != "node" {
		return nil, fmt.Errorf("the cluster in %s is of level %s and has no node: use --level node", dir, c.Level)
	}
	if os.Geteuid() != 0 {
		return nil, errors.New("entering the node's namespaces takes root")
	}
	kube, err := binary(c.Level, "kubectl")
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("nsenter", append([]string{
		"--target=" + strconv.Itoa(p.pid), "--mount", "--net", "--pid", "--uts", "--",
	}, args...)...)
	cmd.Env = environment(
		"KUBECONFIG="+c.path("kubeconfig"),
		"PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin:"+filepath.Dir(kube),
		"CONTAINERD_NAMESPACE=k8s.io",
		"CONTAINER_RUNTIME_ENDPOINT=unix://"+containerdSocket)
	return cmd, cmd.Err
}
