package main

import (
	"fmt"
	"net"
	"strings"
)

const containerdSocket = "/run/containerd/containerd.sock"

// serviceIP is the first service address: the API server's own.
func (c *cluster) serviceIP() string { return strings.TrimSuffix(c.Services, "0/24") + "1" }

// choosePorts finds free ports on loopback for a cluster of the api level. All
// are held until all are known, so that they differ.
func (c *cluster) choosePorts() error {
	c.HostIP, c.NodeIP, c.Services = "127.0.0.1", "127.0.0.1", "10.125.0.0/24"
	for _, port := range []struct {
		url    *string
		scheme string
	}{{&c.Etcd, "http"}, {&c.EtcdPeer, "http"}, {&c.Server, "https"}} {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return fmt.Errorf("find a free port: %w", err)
		}
		defer listener.Close()
		*port.url = fmt.Sprintf("%s://%s", port.scheme, listener.Addr())
	}
	return nil
}

func (c *cluster) etcdFlags() []string {
	return []string{
		"--data-dir=" + c.path("etcd"),
		"--listen-client-urls=" + c.Etcd,
		"--advertise-client-urls=" + c.Etcd,
		"--listen-peer-urls=" + c.EtcdPeer,
		"--initial-advertise-peer-urls=" + c.EtcdPeer,
		"--initial-cluster=default=" + c.EtcdPeer,
		"--unsafe-no-fsync",
		"--log-level=warn",
	}
}

func (c *cluster) apiserverFlags() []string {
	pki := func(name string) string { return c.path("pki", name) }
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(c.Server, "https://"))
	flags := []string{
		"--etcd-servers=" + c.Etcd,
		"--advertise-address=" + c.NodeIP,
		"--secure-port=" + port,
		"--service-cluster-ip-range=" + c.Services,
		"--cert-dir=" + c.path("pki"),
		"--tls-cert-file=" + pki("apiserver.crt"),
		"--tls-private-key-file=" + pki("apiserver.key"),
		"--client-ca-file=" + pki("ca.crt"),
		"--kubelet-certificate-authority=" + pki("ca.crt"),
		"--kubelet-client-certificate=" + pki("apiserver-kubelet.crt"),
		"--kubelet-client-key=" + pki("apiserver-kubelet.key"),
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + pki("sa.pub"),
		"--service-account-signing-key-file=" + pki("sa.key"),
		// All that aggregated APIs, and delegated authentication, need.
		"--requestheader-client-ca-file=" + pki("ca.crt"),
		"--requestheader-allowed-names=front-proxy",
		"--requestheader-username-headers=X-Remote-User",
		"--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--proxy-client-cert-file=" + pki("front-proxy.crt"),
		"--proxy-client-key-file=" + pki("front-proxy.key"),
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction",
		"--allow-privileged=true",
		"--audit-policy-file=" + c.path("config", "audit-policy.yaml"),
		"--audit-log-path=" + c.path("log", "audit.log"),
	}
	if c.Level == "api" {
		// Nothing outside this machine can reach it, or needs an endpoint for it.
		flags = append(flags, "--bind-address=127.0.0.1", "--endpoint-reconciler-type=none")
	}
	return flags
}

func (c *cluster) controllerManagerFlags() []string {
	return append(c.controlFlags("kube-controller-manager"),
		"--kube-api-qps=500", // the default 20 puts seconds between its controllers
		"--kube-api-burst=500",
		"--pvclaimbinder-sync-period=1s", // 15s otherwise for a claim made with its volume
		"--flex-volume-plugin-dir="+c.path("config", "flexvolume"),
		"--use-service-account-credentials=true",
		"--root-ca-file="+c.path("pki", "ca.crt"),
		"--service-account-private-key-file="+c.path("pki", "sa.key"),
		"--cluster-signing-cert-file="+c.path("pki", "ca.crt"),
		"--cluster-signing-key-file="+c.path("pki", "ca.key"))
}

func (c *cluster) schedulerFlags() []string { return c.controlFlags("kube-scheduler") }

// controlFlags are common to the components that only talk to the API server.
func (c *cluster) controlFlags(name string) []string {
	kubeconfig := c.path("pki", name+".kubeconfig")
	return []string{
		"--kubeconfig=" + kubeconfig,
		"--authentication-kubeconfig=" + kubeconfig,
		"--authorization-kubeconfig=" + kubeconfig,
		"--leader-elect=false",
		"--secure-port=0", // they serve nobody, and several clusters share loopback
	}
}

// csiFlags are those of a part of CSI.
func (c *cluster) csiFlags(name string) []string {
	if name == "csi-driver" {
		return []string{
			"--name=" + csiName,
			"--socket=" + csiSocket,
			"--registry=/var/lib/kubelet/plugins_registry",
			"--pool=" + c.path("csi", "pool"),
			"--faults=" + c.path("csi", "faults"),
			fmt.Sprintf("--btrfs=%t", c.csiKind() == "btrfs"),
		}
	}
	flags := []string{
		"--kubeconfig=" + c.path("pki", "csi.kubeconfig"),
		"--kube-api-qps=100",
		"--kube-api-burst=100",
		// Up to five minutes otherwise, and a test of an error would wait for them.
		"--retry-interval-start=200ms",
		"--retry-interval-max=2s",
	}
	if name != "csi-provisioner" {
		// Their API is not installed, and the controller would first wait half a minute for it.
		flags = append(flags, "--feature-gates=CSIVolumeGroupSnapshot=false")
	}
	if name != "snapshot-controller" {
		flags = append(flags, "--csi-address="+csiSocket, "--timeout=1m", "--extra-create-metadata")
	}
	return flags
}

func (c *cluster) kubeletFlags() []string {
	return []string{
		"--config=" + c.path("config", "kubelet.yaml"),
		"--kubeconfig=" + c.path("pki", "kubelet.kubeconfig"),
		"--cert-dir=" + c.path("pki"),
		"--hostname-override=node",
		"--node-ip=" + c.NodeIP,
	}
}
