// Command csi-driver is the test cluster's storage: a driver of the Container
// Storage Interface (https://github.com/container-storage-interface/spec, v1.13)
// for one node, with volumes that are btrfs subvolumes, or else plain folders,
// and with faults that a test can switch on while it runs.
//
// It may be killed at any time: what it knows is kept beside the data (records.go).
package main

import (
	"context"
	"flag"
	"log"
	"net"
	"os"
	"path"
	"path/filepath"
	"sync"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// driver answers for all three CSI services.
type driver struct {
	csi.UnimplementedIdentityServer
	csi.UnimplementedControllerServer
	csi.UnimplementedNodeServer

	name, node string
	pool       *pool
	volumes    shelf[volume]
	snapshots  shelf[snapshot]
	faults     faults

	mu sync.Mutex // one change at a time: each is quick
}

func main() {
	log.SetFlags(log.LstdFlags | log.Lmicroseconds)
	var (
		name     = flag.String("name", "csi.imagecache.test", "the driver's name in StorageClasses")
		node     = flag.String("node", "node", "the node's name")
		socket   = flag.String("socket", "", "where to serve CSI")
		registry = flag.String("registry", "", "the kubelet's plugin registry; empty: do not register")
		data     = flag.String("pool", "", "the folder for volumes and snapshots")
		btrfs    = flag.Bool("btrfs", false, "the pool is a btrfs of its own with quotas enabled: use subvolumes")
		switches = flag.String("faults", "", "the folder with the fault switches; empty: none")
	)
	flag.Parse()
	if *socket == "" || *data == "" || flag.NArg() > 0 {
		log.Fatal("usage: csi-driver --socket=FILE --pool=FOLDER [FLAG]...; see csi-driver --help")
	}
	d := &driver{name: *name, node: *node, pool: &pool{*data, *btrfs}, faults: faults{dir: *switches}}
	if err := d.open(); err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer(grpc.ChainUnaryInterceptor(logged, d.faults.intercept))
	csi.RegisterIdentityServer(server, d)
	csi.RegisterControllerServer(server, d)
	csi.RegisterNodeServer(server, d)
	failed := make(chan error)
	go func() { failed <- serve(server, *socket) }()
	if *registry != "" {
		registrar := grpc.NewServer()
		registration.RegisterRegistrationServer(registrar, &plugin{name: *name, endpoint: *socket})
		go func() { failed <- serve(registrar, filepath.Join(*registry, *name+"-reg.sock")) }()
	}
	log.Fatal(<-failed)
}

// serve listens on a socket; one that an earlier run left is in the way.
func serve(server *grpc.Server, socket string) error {
	if err := os.MkdirAll(filepath.Dir(socket), 0o755); err != nil {
		return err
	}
	os.Remove(socket)
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	return server.Serve(listener)
}

// logged leaves a line for every call that could matter to a test.
func logged(ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	start := time.Now()
	response, err := handle(ctx, request)
	switch method := path.Base(info.FullMethod); {
	case err != nil:
		log.Printf("%s: %v", method, err)
	case method != "Probe":
		log.Printf("%s: done in %v", method, time.Since(start).Round(time.Millisecond))
	}
	return response, err
}

// plugin tells the kubelet of the driver: it watches its registry for sockets.
type plugin struct {
	registration.UnimplementedRegistrationServer
	name, endpoint string
}

func (p *plugin) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{
		Type: registration.CSIPlugin, Name: p.name, Endpoint: p.endpoint, SupportedVersions: []string{"1.0.0"},
	}, nil
}

func (p *plugin) NotifyRegistrationStatus(_ context.Context, status *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	if !status.GetPluginRegistered() {
		log.Fatalf("the kubelet refused the driver: %s", status.GetError())
	}
	log.Print("the kubelet knows the driver")
	return &registration.RegistrationStatusResponse{}, nil
}
