//! Names to addresses: host aliases first, then the name servers that were given, else as the machine does.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use hickory_resolver::{
    TokioResolver,
    config::{NameServerConfig, ResolverConfig},
    net::{NetError, runtime::TokioRuntimeProvider},
    proto::rr::Name,
};
use tokio::time::timeout;

use crate::model::{
    class::Class,
    failure::Failure,
    lookup::{Dns, Lookup},
};

/// Where name servers listen.
pub(super) const DNS_PORT: u16 = 53;

/// By default as the machine does.
#[derive(Default)]
pub(crate) struct Names {
    given: Lookup,
    servers: Option<TokioResolver>,
}

impl Names {
    pub(crate) fn new(given: &Lookup, dns_port: u16) -> Result<Self, Failure> {
        let dns = given.dns.as_ref().filter(|dns| !dns.nameservers.is_empty());
        let servers = dns.map(|dns| resolver(dns, dns_port)).transpose();
        let servers = servers.map_err(|e| {
            Failure::new(Class::InvalidSpec, format!("these name servers cannot be used: {e}"))
        })?;
        Ok(Self { given: given.clone(), servers })
    }

    pub(crate) async fn find(
        &self,
        host: &str,
        port: u16,
        limit: Duration,
    ) -> Result<Vec<SocketAddr>, Failure> {
        let at = |ips: Vec<IpAddr>| ips.into_iter().map(|ip| SocketAddr::new(ip, port)).collect();
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Ok(at(vec![ip]));
        }
        let aliases = self.given.aliases(host);
        if !aliases.is_empty() {
            return Ok(at(aliases));
        }
        let Some(servers) = &self.servers else {
            let found = timeout(limit, tokio::net::lookup_host((host, port)))
                .await
                .map_err(|_| Failure::new(Class::Dns, format!("lookup {host}: i/o timeout")))?
                .map_err(|_| Failure::new(Class::Dns, format!("lookup {host}: no such host")))?;
            return Ok(found.collect());
        };
        let asked = self.asked();
        match timeout(limit, servers.lookup_ip(host)).await {
            Ok(Ok(found)) => Ok(at(found.iter().collect())),
            Ok(Err(error)) if none(&error) => {
                Err(Failure::new(Class::Dns, format!("lookup {host} on {asked}: no such host")))
            }
            Ok(Err(_)) => Err(Failure::new(
                Class::Dns,
                format!("lookup {host} on {asked}: the name server does not answer"),
            )),
            Err(_) => Err(Failure::new(Class::Dns, format!("lookup {host} on {asked}: i/o timeout"))),
        }
    }

    fn asked(&self) -> String {
        let servers = self.given.dns.iter().flat_map(|dns| &dns.nameservers);
        servers.map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }
}

fn none(error: &NetError) -> bool {
    error.is_nx_domain() || error.is_no_records_found()
}

fn resolver(dns: &Dns, port: u16) -> Result<TokioResolver, NetError> {
    let servers = dns.nameservers.iter().map(|ip| {
        let mut server = NameServerConfig::udp_and_tcp(*ip);
        for connection in &mut server.connections {
            connection.port = port;
        }
        server
    });
    let mut config = ResolverConfig::from_name_servers(servers.collect());
    for search in &dns.searches {
        config.add_search(Name::from_utf8(search)?);
    }
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    let options = builder.options_mut();
    let number = |name: &str, most: u64| dns.number(name).map(|n| n.min(most));
    // The limits of resolv.conf(5).
    if let Some(ndots) = number("ndots", 15) {
        options.ndots = usize::try_from(ndots).unwrap_or(options.ndots);
    }
    if let Some(seconds) = number("timeout", 30) {
        options.timeout = Duration::from_secs(seconds.max(1));
    }
    if let Some(attempts) = number("attempts", 5) {
        options.attempts = usize::try_from(attempts).unwrap_or(options.attempts);
    }
    options.edns0 = dns.options.iter().any(|option| option.name == "edns0");
    builder.build()
}
