package main

import (
	"embed"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
)

//go:embed config
var embedded embed.FS

// configure writes what this run needs, and gives a node its surroundings.
// Addresses may have changed since an earlier run, so all but the authority is
// written anew.
func (s *supervisor) configure() error {
	c := s.cluster
	if err := errors.Join(c.writeKeys(), s.announce()); err != nil {
		return err
	}
	admin, err := os.ReadFile(c.path("pki", "admin.kubeconfig"))
	if err != nil {
		return err
	}
	if err := os.WriteFile(c.path("kubeconfig"), admin, 0o600); err != nil {
		return err
	}
	if c.Level == "api" {
		return nil
	}
	if err := errors.Join(c.writeConfig(), c.writeHosts(), c.makeCgroups()); err != nil {
		return err
	}
	for name, command := range map[string][]string{"pause": {"/bin/sleep", "2147483647"}, "busybox": {"/bin/sh"}} {
		path := c.path("images", name+".tar")
		if _, err := os.Stat(path); err == nil {
			continue
		}
		if err := writeImage(path, "localhost/"+name+":1", command...); err != nil {
			return fmt.Errorf("make image %s: %w", name, err)
		}
	}
	if err := c.isolate(); err != nil {
		return err
	}
	return c.joinNetwork()
}

func (c *cluster) writeKeys() error {
	p, err := openPKI(c.path("pki"))
	if err != nil {
		return err
	}
	return errors.Join(
		p.server("apiserver", "kube-apiserver", nil,
			[]string{"localhost", "node", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"},
			c.NodeIP, "127.0.0.1", c.serviceIP()),
		p.server("kubelet-server", "kubelet", nil, []string{"node"}, c.NodeIP),
		p.server("apiserver-kubelet", "kube-apiserver-kubelet-client", []string{"system:masters"}, nil),
		p.server("front-proxy", "front-proxy", nil, nil),
		p.client("admin", c.Server, "admin", "system:masters"),
		p.client("supervisor", c.Server, "cluster:supervisor", "system:masters"),
		p.client("kube-controller-manager", c.Server, "system:kube-controller-manager"),
		p.client("kube-scheduler", c.Server, "system:kube-scheduler"),
		p.client("kube-proxy", c.Server, "system:kube-proxy"),
		p.client("coredns", c.Server, "cluster:dns", "system:masters"),
		p.client("csi", c.Server, "cluster:csi", "system:masters"),
		p.client("kubelet", c.Server, "system:node:node", "system:nodes"),
	)
}

// fill puts the cluster's addresses and paths into an embedded file.
func (c *cluster) fill(name string) (string, error) {
	text, err := embedded.ReadFile("config/" + name)
	if err != nil {
		return "", err
	}
	return strings.NewReplacer(
		"@DIR@", c.Dir,
		"@NODE_IP@", c.NodeIP,
		"@PODS@", c.PodCIDR,
		"@CGROUP@", c.cgroupRoot(),
		"@SNAPSHOTTER@", c.snapshotter(),
		"@CSI@", csiName,
	).Replace(string(text)), nil
}

func (c *cluster) writeConfig() error {
	for _, dir := range []string{"certs.d", "config/cni", "config/flexvolume"} {
		if err := os.MkdirAll(c.path(dir), 0o755); err != nil {
			return err
		}
	}
	for from, to := range map[string]string{
		"containerd.toml": "containerd.toml",
		"cni.conflist":    "cni/node.conflist",
		"kubelet.yaml":    "kubelet.yaml",
		"kube-proxy.yaml": "kube-proxy.yaml",
		"Corefile":        "Corefile",
		"nothing.zone":    "nothing.zone",
		"resolv.conf":     "resolv.conf",
	} {
		text, err := c.fill(from)
		if err != nil {
			return err
		}
		if err := os.WriteFile(c.path("config", to), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// writeHosts writes the names that the node and, through DNS, its pods know.
func (c *cluster) writeHosts() error {
	text := fmt.Sprintf("127.0.0.1 localhost\n%s node\n", c.NodeIP)
	for _, host := range c.Hosts {
		address := host.Address
		switch address {
		case "host":
			address = c.HostIP
		case "node":
			address = c.NodeIP
		default:
			if _, err := netip.ParseAddr(address); err != nil {
				return fmt.Errorf("--host %s=%s: want an IP address, host or node", host.Name, address)
			}
		}
		text += address + " " + host.Name + "\n"
	}
	return os.WriteFile(c.path("hosts"), []byte(text), 0o644)
}
