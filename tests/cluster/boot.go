package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// boot starts everything in order and returns when the cluster is ready. What it
// sends to starts is run by the thread that may start lasting programs.
func (s *supervisor) boot(starts chan<- func()) error {
	start := func(name string, flags []string) error {
		path, err := binary(s.Level, name)
		if err != nil {
			return err
		}
		done := make(chan error)
		starts <- func() { done <- s.daemon(name, path, flags...) }
		return <-done
	}
	s.stage("configured")
	if err := start("etcd", s.etcdFlags()); err != nil {
		return err
	}
	images := make(chan error, 1)
	if s.Level == "node" {
		containerd, err := exec.LookPath("containerd")
		if err != nil {
			return err
		}
		if err := s.daemon("containerd", containerd, "--config="+s.path("config", "containerd.toml")); err != nil {
			return err
		}
		go func() { images <- s.importImages() }()
	}
	until(func() bool { return dials("tcp", s.Etcd[len("http://"):]) })
	if err := start("kube-apiserver", s.apiserverFlags()); err != nil {
		return err
	}
	api, err := newClient(s.Server, s.path("pki"), "supervisor")
	if err != nil {
		return err
	}
	until(func() bool { return api.get("/readyz", nil) == nil })
	s.stage("kube-apiserver is ready")

	_, missing := binary(s.Level, "kube-controller-manager")
	if missing == nil {
		if err := start("kube-controller-manager", s.controllerManagerFlags()); err != nil {
			return err
		}
	} else {
		s.stage("kube-controller-manager is left out: neither in KUBEBUILDER_ASSETS nor built")
	}
	if s.Level == "node" {
		if err := s.bootNode(api, start, images); err != nil {
			return err
		}
	}
	if missing == nil {
		until(func() bool { return api.get("/api/v1/namespaces/default/serviceaccounts/default", nil) == nil })
		s.stage("pods can be made in default")
	}
	return nil
}

func (s *supervisor) bootNode(api *client, start func(string, []string) error, images <-chan error) error {
	if err := start("kube-scheduler", s.schedulerFlags()); err != nil {
		return err
	}
	if err := <-images; err != nil {
		return err
	}
	for name, flags := range map[string][]string{
		"kubelet":    s.kubeletFlags(),
		"kube-proxy": {"--config=" + s.path("config", "kube-proxy.yaml")},
		"coredns":    {"-conf=" + s.path("config", "Corefile")},
	} {
		if err := start(name, flags); err != nil {
			return err
		}
	}
	if err := s.offerVolumes(api); err != nil {
		return err
	}
	until(func() bool { return nodeReady(api, s.start) })
	s.stage("the node is ready")
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, s.NodeIP+":53")
	}}
	until(func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		found, err := resolver.LookupHost(ctx, "kubernetes.default.svc.cluster.local.")
		return err == nil && len(found) > 0
	})
	until(func() bool { return dials("tcp", s.serviceIP()+":443") })
	s.stage("names and services answer")
	go s.recycleVolumes(api)
	if s.csiKind() != "" {
		return s.offerCSI(api)
	}
	go func() {
		if err := s.offerCSI(api); err != nil {
			s.dead <- err
		}
	}()
	return nil
}

// importImages loads every archive under images/ into containerd.
func (s *supervisor) importImages() error {
	until(func() bool { return dials("unix", containerdSocket) })
	archives, err := filepath.Glob(s.path("images", "*.tar"))
	if err != nil {
		return err
	}
	for _, archive := range archives {
		if err := s.finish("images", "ctr", "--namespace=k8s.io", "images", "import", archive); err != nil {
			return err
		}
	}
	s.stage("%d images are loaded", len(archives))
	return nil
}

// nodeReady takes no notice of what was said of the node before since, in an
// earlier run.
func nodeReady(api *client, since time.Time) bool {
	var node struct {
		Status struct {
			Conditions []struct {
				Type, Status      string
				LastHeartbeatTime time.Time
			}
		}
	}
	if api.get("/api/v1/nodes/node", &node) != nil {
		return false
	}
	for _, condition := range node.Status.Conditions {
		if condition.Type == "Ready" {
			return condition.Status == "True" && !condition.LastHeartbeatTime.Before(since.Truncate(time.Second))
		}
	}
	return false
}

// until waits for a condition; up's time-out is the limit.
func until(condition func() bool) {
	for !condition() {
		time.Sleep(20 * time.Millisecond)
	}
}

func dials(network, address string) bool {
	conn, err := net.DialTimeout(network, address, 200*time.Millisecond)
	if err == nil {
		conn.Close()
	}
	return err == nil
}

// announce writes the files that tell tests where the cluster is.
func (s *supervisor) announce() error {
	if s.Level != "node" {
		return nil
	}
	for name, address := range map[string]string{"host-ip": s.HostIP, "node-ip": s.NodeIP} {
		if err := os.WriteFile(s.path(name), []byte(address+"\n"), 0o644); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
	}
	return nil
}
