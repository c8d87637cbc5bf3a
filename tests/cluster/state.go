package main

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// cluster is what is known of the cluster in a folder; it is kept there, in
// cluster.json, for the supervisor, for later commands and for tests.
type cluster struct {
	Dir   string `json:"dir"`
	Level string `json:"level"`
	// ID is the same for the same folder and differs between folders; it names
	// what a node has outside its namespaces: network link and cgroups.
	ID string `json:"id"`
	// Range is the N in the addresses 10.123.N.0/30 and so on (node level).
	Range    int        `json:"range"`
	HostIP   string     `json:"hostIP"` // the machine, as the node sees it
	NodeIP   string     `json:"nodeIP"` // the node, as the machine sees it
	PodCIDR  string     `json:"podCIDR,omitempty"`
	Services string     `json:"serviceCIDR"`
	Server   string     `json:"server"` // the API server's URL
	Etcd     string     `json:"etcd"`
	EtcdPeer string     `json:"etcdPeer"`
	Hosts    []hostName `json:"hosts,omitempty"`
}

// hostName is a name for an address, which may be "host" or "node".
type hostName struct{ Name, Address string }

func newCluster(dir, level string) *cluster {
	return &cluster{
		Dir: dir, Level: level, Range: -1,
		ID: fmt.Sprintf("%x", sha256.Sum256([]byte(dir)))[:8],
	}
}

func (c *cluster) path(elem ...string) string {
	return filepath.Join(append([]string{c.Dir}, elem...)...)
}

func (c *cluster) logFile(name string) string { return c.path("log", name+".log") }

func (c *cluster) save() error {
	data, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(c.path("cluster.json"), append(data, '\n'), 0o644)
}

// read returns the cluster that was made in a folder, running or not.
func read(dir string) (*cluster, error) {
	data, err := os.ReadFile(filepath.Join(dir, "cluster.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("no cluster was made in %s: run cluster up %[1]s", dir)
	}
	c := &cluster{}
	if err == nil {
		err = json.Unmarshal(data, c)
	}
	return c, err
}

// running returns the cluster in a folder and its supervisor, or says why there
// is none.
func running(dir string) (*cluster, *process, error) {
	c, err := read(dir)
	if err != nil {
		return nil, nil, err
	}
	p, err := c.supervisor()
	switch {
	case err != nil:
		return nil, nil, err
	case p == nil:
		return nil, nil, fmt.Errorf("the cluster in %s is down: run cluster up %[1]s", dir)
	case !p.alive():
		return nil, nil, fmt.Errorf("the supervisor of the cluster in %s has died%s: run cluster down %[1]s", dir, c.lastFailure())
	}
	return c, p, nil
}

// lastFailure is what the supervisor wrote before it ended, if it could.
func (c *cluster) lastFailure() string {
	data, err := os.ReadFile(c.path("failure"))
	if err != nil {
		return ""
	}
	return " (" + strings.TrimSpace(string(data)) + ")"
}

// process is a process by number and start time, which together are unique.
type process struct {
	pid   int
	start string
}

// supervisor returns the recorded supervisor, alive or not, or nil.
func (c *cluster) supervisor() (*process, error) {
	data, err := os.ReadFile(c.path("supervisor.pid"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	pid, start, _ := strings.Cut(strings.TrimSpace(string(data)), " ")
	p := &process{start: start}
	p.pid, _ = strconv.Atoi(pid) // an up that was cut short leaves it empty
	return p, nil
}

func (p *process) alive() bool {
	return p.pid > 0 && startTime(p.pid) == p.start && p.start != ""
}

// startTime is a process's start in clock ticks since boot, or "" when it has
// ended, reaped or not.
func startTime(pid int) string {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	// The name, in parentheses, may hold anything; count from its end.
	fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	if len(fields) < 20 || fields[0] == "Z" || fields[0] == "X" {
		return ""
	}
	return fields[19]
}
