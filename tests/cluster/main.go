// Command cluster runs a real Kubernetes on one machine for tests: only its API,
// as any user, or a whole node in namespaces of its own, as root.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const usage = `usage: cluster COMMAND DIR [ARG]...

  up DIR --level api|node     start a cluster that keeps its files in DIR
  down DIR                    end it and remove what it left on the machine (DIR stays)
  status DIR                  say whether it runs, and its addresses; exit status 0 if it does
  kubectl DIR ARG...          run kubectl against it
  load DIR ARCHIVE...         import OCI or Docker image archives into its node
  exec DIR COMMAND [ARG]...   run a command inside its node's namespaces
  csi DIR [--folders]         give its node a CSI driver with snapshots; later ups keep it
  csi DIR stop|start PART...  stop and start csi-driver, csi-provisioner, csi-snapshotter
                              or snapshot-controller

flags of up:
  --level api         etcd, kube-apiserver and kube-controller-manager on loopback; no root
  --level node        (default) all of Kubernetes, DNS and containerd; needs root
  --host NAME=IP      a name for the node and its pods, repeatable; IP may also be
                      "host" (this machine) or "node"
  --audit-policy FILE an audit policy instead of Metadata for everything
  --timeout DURATION  give up when the cluster is not ready by then (default 10m)

flags of csi:
  --folders           volumes are plain folders even where btrfs is to be had

examples:
  cluster up /tmp/c --level node --host registry.demo=host
  export KUBECONFIG=/tmp/c/kubeconfig
  cluster load /tmp/c operator.tar
  cluster kubectl /tmp/c get pods -A
  cluster exec /tmp/c ctr images ls
  cluster exec /tmp/c curl -sS http://$(cat /tmp/c/node-ip):30500/v2/
  cluster down /tmp/c
`

func main() {
	if len(os.Args) < 2 || strings.TrimLeft(os.Args[1], "-") == "help" || os.Args[1] == "-h" {
		fmt.Print(usage)
		return
	}
	name := os.Args[1]
	if err := command(name, os.Args[2:]); err != nil {
		var code exitCode
		if errors.As(err, &code) {
			os.Exit(int(code))
		}
		fmt.Fprintf(os.Stderr, "cluster %s: %v\n", name, err)
		os.Exit(1)
	}
}

// exitCode ends the program with a status and without a message.
type exitCode int

func (c exitCode) Error() string { return fmt.Sprintf("exit status %d", int(c)) }

func command(name string, args []string) error {
	for _, arg := range args {
		if arg == "--" || name == "kubectl" || name == "exec" {
			break // the rest belongs to another program
		}
		if arg == "--help" || arg == "-h" {
			fmt.Print(usage)
			return nil
		}
	}
	if len(args) == 0 || strings.HasPrefix(args[0], "-") {
		return errors.New("the first argument must be the cluster's folder; see cluster --help")
	}
	dir, err := filepath.Abs(args[0])
	if err != nil {
		return err
	}
	args = args[1:]
	switch name {
	case "up":
		return upCommand(dir, args)
	case "down":
		return down(dir)
	case "status":
		return status(dir)
	case "kubectl":
		return kubectl(dir, args)
	case "load":
		return load(dir, args)
	case "exec":
		return execute(dir, args)
	case "csi":
		return csiCommand(dir, args)
	case "supervise": // up's other half, not for users
		return supervise(dir)
	}
	return errors.New("no such command; see cluster --help")
}

func upCommand(dir string, args []string) error {
	opts := options{Level: "node", Timeout: 10 * time.Minute}
	flags := flag.NewFlagSet("up", flag.ContinueOnError)
	flags.Usage = func() {}
	flags.SetOutput(new(strings.Builder)) // the error says it all
	flags.StringVar(&opts.Level, "level", opts.Level, "")
	flags.StringVar(&opts.AuditPolicy, "audit-policy", "", "")
	flags.DurationVar(&opts.Timeout, "timeout", opts.Timeout, "")
	flags.Func("host", "", func(value string) error {
		name, address, ok := strings.Cut(value, "=")
		if !ok || name == "" || address == "" {
			return errors.New("want NAME=IP, NAME=host or NAME=node")
		}
		opts.Hosts = append(opts.Hosts, hostName{name, address})
		return nil
	})
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("%w; see cluster --help", err)
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q; see cluster --help", flags.Arg(0))
	}
	if opts.Level != "api" && opts.Level != "node" {
		return fmt.Errorf("--level is %q, want api or node", opts.Level)
	}
	return up(dir, opts)
}
