//! Which addresses may be dialled. Judged on the address after name resolution, so a name that changes its answer
//! gains nothing. Sources: IANA special-purpose registries; RFC 6890, RFC 6052 (NAT64), RFC 3056 (6to4).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Public,
    /// Loopback, private and carrier-grade ranges: allowed for a registry that the user names, and for its token
    /// service and redirects only if the registry itself is inside.
    Inside,
    /// Link-local, metadata services and addresses that are no server: never.
    Never,
}

pub(crate) fn place(address: IpAddr) -> Place {
    match address {
        IpAddr::V4(v4) => place_v4(v4),
        IpAddr::V6(v6) => embedded(v6).map_or_else(|| place_v6(v6), place_v4),
    }
}

/// Metadata services outside link-local: Alibaba Cloud, Oracle Cloud, Azure's wire server.
const METADATA_V4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(192, 0, 0, 192), Ipv4Addr::new(168, 63, 129, 16)];
/// The metadata service of EC2.
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

fn place_v4(v4: Ipv4Addr) -> Place {
    let [a, b, ..] = v4.octets();
    if METADATA_V4.contains(&v4) || v4.is_link_local() || a == 0 || a >= 224 {
        Place::Never
    } else if v4.is_loopback() || v4.is_private() || (a == 100 && (64..128).contains(&b)) {
        Place::Inside
    } else {
        Place::Public
    }
}

fn place_v6(v6: Ipv6Addr) -> Place {
    let first = v6.segments()[0];
    if v6 == METADATA_V6 || v6.is_unspecified() || v6.is_multicast() || v6.is_unicast_link_local() {
        Place::Never
    } else if v6.is_loopback() || v6.is_unique_local() || first & 0xffc0 == 0xfec0 {
        Place::Inside
    } else {
        Place::Public
    }
}

/// The IPv4 address that an IPv6 address stands for: mapped, compatible, NAT64, 6to4.
fn embedded(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    let s = v6.segments();
    let from = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match s {
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => Some(from(high, low)),
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, .., high, low] | [0x2002, high, low, ..] => {
            Some(from(high, low))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_and_link_local_addresses_are_never_dialled_in_any_disguise() {
        for text in [
            "169.254.169.254",
            "169.254.0.1",
            "fe80::1",
            "fd00:ec2::254",
            "100.100.100.200",
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "::",
            "::ffff:169.254.169.254",
            "::169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "2002:a9fe:a9fe::1",
            "::ffff:100.100.100.200",
        ] {
            assert_eq!(place(text.parse().unwrap()), Place::Never, "{text}");
        }
    }

    #[test]
    fn private_and_loopback_addresses_are_inside() {
        for text in [
            "127.0.0.1",
            "127.1.2.3",
            "::1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "100.118.28.45",
            "fd12::1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "2002:7f00:1::",
        ] {
            assert_eq!(place(text.parse().unwrap()), Place::Inside, "{text}");
        }
        for text in ["1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1", "2002:101:101::"] {
            assert_eq!(place(text.parse().unwrap()), Place::Public, "{text}");
        }
    }
}
