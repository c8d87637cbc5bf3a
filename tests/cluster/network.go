package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
)

// link is the machine's end of the pair that joins it to the node; the other
// end is the node's eth0.
func (c *cluster) link() string { return "ic-" + c.ID }

// setRange gives the cluster the addresses with number n.
func (c *cluster) setRange(n int) {
	c.Range = n
	c.HostIP = fmt.Sprintf("10.123.%d.1", n)
	c.NodeIP = fmt.Sprintf("10.123.%d.2", n)
	c.PodCIDR = fmt.Sprintf("10.124.%d.0/24", n)
	c.Services = fmt.Sprintf("10.125.%d.0/24", n)
	c.Server = fmt.Sprintf("https://%s:6443", c.NodeIP)
	c.Etcd, c.EtcdPeer = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
}

// connect joins the machine to the network namespace of the supervisor, with
// routes to its pods and services.
func (c *cluster) connect(pid int) error {
	if err := ip("link add %s type veth peer name eth0 netns %d", c.link(), pid); err != nil {
		return err
	}
	if err := ip("link set %s up", c.link()); err != nil {
		return err
	}
	if err := c.claimRange(); err != nil {
		return err
	}
	return errors.Join(
		ip("address add %s/30 dev %s", c.HostIP, c.link()),
		ip("route add %s via %s dev %s onlink", c.Services, c.NodeIP, c.link()),
	)
}

// claimRange finds addresses that nothing on the machine uses. Two clusters that
// start at once may look at the same ones: adding the route is the claim, for the
// kernel lets only one of them do it.
func (c *cluster) claimRange() error {
	taken, err := routes()
	if err != nil {
		return err
	}
	claim := func(n int) bool {
		c.setRange(n)
		for _, ours := range []string{c.HostIP + "/30", c.PodCIDR, c.Services} {
			for _, other := range taken {
				if other.Overlaps(netip.MustParsePrefix(ours)) {
					return false
				}
			}
		}
		return ip("route add %s via %s dev %s onlink", c.PodCIDR, c.NodeIP, c.link()) == nil
	}
	if n := c.Range; n >= 0 {
		// Services and certificates of an earlier run hold these addresses.
		if !claim(n) {
			return fmt.Errorf("the addresses of the cluster in %s (10.123.%d.0/30, %s, %s) are in use by now: remove the folder to start afresh", c.Dir, n, c.PodCIDR, c.Services)
		}
		return nil
	}
	// Each folder has a place of its own to look from, so that a cluster that is
	// down for a moment mostly finds its addresses free again.
	first, err := strconv.ParseUint(c.ID, 16, 32)
	if err != nil {
		return err
	}
	for i := range 256 {
		if claim((int(first) + i) % 256) {
			return nil
		}
	}
	return errors.New("no free addresses: ip route has routes into every 10.123.N.0/30, 10.124.N.0/24 or 10.125.N.0/24; take down clusters that are not needed")
}

// routes lists where the machine sends packets, but for very wide routes: those
// of a private network as a whole may be shadowed by our few addresses.
func routes() ([]netip.Prefix, error) {
	out, err := exec.Command("ip", "-4", "-json", "route", "show", "table", "all").Output()
	if err != nil {
		return nil, fmt.Errorf("ip route show: %w", err)
	}
	var list []struct{ Dst string }
	if err := json.Unmarshal(out, &list); err != nil {
		return nil, fmt.Errorf("ip route show: %w", err)
	}
	var prefixes []netip.Prefix
	for _, route := range list {
		if !strings.Contains(route.Dst, "/") {
			route.Dst += "/32"
		}
		if prefix, err := netip.ParsePrefix(route.Dst); err == nil && prefix.Bits() >= 14 {
			prefixes = append(prefixes, prefix)
		}
	}
	return prefixes, nil
}

// joinNetwork sets up the node's side. There is no default route: what is
// neither a pod nor the machine is unreachable at once instead of timing out.
func (c *cluster) joinNetwork() error {
	return errors.Join(
		ip("link set lo up"),
		ip("address add %s/30 dev eth0", c.NodeIP),
		ip("link set eth0 up"),
		// A packet must have a way to go before it is turned towards a service's pod.
		ip("route add %s dev eth0 src %s", c.Services, c.NodeIP),
		os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0),
	)
}

func ip(format string, args ...any) error {
	line := fmt.Sprintf(format, args...)
	if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", line, err, strings.TrimSpace(string(out)))
	}
	return nil
}
