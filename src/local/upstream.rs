//! How registries are reached by hand: from flags to the client's settings.

use std::collections::BTreeMap;

use crate::{
    cli::UpstreamArgs,
    model::{
        credentials::Credentials,
        failure::Failure,
        reference::RegistryHost,
        request::{Access, Transport},
    },
    registry::{Client, Config, CredentialSource},
};

/// Flags are the operator's own word: no overrides. A host in both lists speaks plain HTTP.
pub(super) fn access(args: &UpstreamArgs) -> BTreeMap<RegistryHost, Access> {
    let lists = [(&args.insecure, Transport::HttpsUnverified), (&args.plain_http, Transport::PlainHttp)];
    let of = |(hosts, transport): (&Vec<RegistryHost>, Transport)| {
        let access = Access { transport, overridden: false };
        hosts.iter().map(|host| (host.clone(), access)).collect::<Vec<_>>()
    };
    lists.into_iter().flat_map(of).collect()
}

pub(super) fn credentials(args: &UpstreamArgs) -> CredentialSource {
    match &args.authfile {
        Some(path) => CredentialSource::Files(vec![path.clone()]),
        None => CredentialSource::Fixed(Credentials::default()),
    }
}

/// A client with the limits that the flags set.
pub(super) fn client(args: &UpstreamArgs, mut config: Config) -> Result<Client, Failure> {
    let connections = args.connections.into();
    config.limits.connections_per_host = connections;
    config.limits.connections = config.limits.connections.max(connections);
    Client::new(config)
}
