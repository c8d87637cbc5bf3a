//! Credentials of a pull by hand: the file that is named, and password-free logins, which are held in memory and
//! renewed while the pull runs.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use super::upstream;
use crate::{
    acr::{Acr, Taken},
    cli::PullArgs,
    model::{
        acr::{Logins, renew_at},
        class::Class,
        credentials::Credentials,
        failure::Failure,
    },
    ops::{clock, out::tell},
    registry::CredentialSource,
};

const AGAIN: Duration = Duration::from_mins(1);

pub(super) struct Lender<'a> {
    args: &'a PullArgs,
    logins: &'a Logins,
    /// Absent without logins: then there is nothing to renew.
    renewed: Option<Renewed>,
}

struct Renewed {
    acr: Acr,
    /// Until the first renewal.
    first: Duration,
    shared: Arc<Mutex<Credentials>>,
}

impl<'a> Lender<'a> {
    pub(super) async fn begin(logins: &'a Logins, args: &'a PullArgs) -> Result<Self, Failure> {
        let identity = args.acr.own_identity().filter(|_| !logins.is_empty());
        let Some(identity) = identity else { return Ok(Self { args, logins, renewed: None }) };
        let acr = Acr::new(identity, args.acr.endpoints())?;
        let taken = acr.logins(logins).await?;
        let first = wait(&taken);
        let shared = Arc::new(Mutex::new(together(taken, args)?));
        Ok(Self { args, logins, renewed: Some(Renewed { acr, first, shared }) })
    }

    pub(super) fn source(&self) -> CredentialSource {
        match &self.renewed {
            Some(renewed) => CredentialSource::Shared(Arc::clone(&renewed.shared)),
            None => upstream::credentials(&self.args.upstream),
        }
    }

    /// Never ends.
    pub(super) async fn renew(&self) -> Infallible {
        let Some(Renewed { acr, first, shared }) = &self.renewed else { return std::future::pending().await };
        let mut pause = *first;
        loop {
            tokio::time::sleep(pause).await;
            let fresh = match acr.logins(self.logins).await {
                Ok(taken) => {
                    pause = wait(&taken);
                    together(taken, self.args)
                }
                Err(failure) => Err(failure),
            };
            match fresh {
                Ok(fresh) => *shared.lock().unwrap_or_else(PoisonError::into_inner) = fresh,
                Err(failure) => {
                    tell(&format!("not renewed yet: {failure}"));
                    pause = AGAIN;
                }
            }
        }
    }
}

fn wait(taken: &Taken) -> Duration {
    let now = clock::now();
    let Some(expires) = taken.expires else { return Duration::from_hours(24) };
    Duration::try_from(renew_at(now, expires).duration_since(now)).unwrap_or(AGAIN)
}

/// The file's entries come first, as pull secrets do.
fn together(taken: Taken, args: &PullArgs) -> Result<Credentials, Failure> {
    let mut texts = Vec::new();
    if let Some(path) = &args.upstream.authfile {
        let unreadable =
            |e| Failure::new(Class::SecretMissing, format!("credentials {}: {e}", path.display()));
        texts.push(std::fs::read(path).map_err(unreadable)?);
    }
    texts.extend(taken.docker_config);
    Ok(Credentials::parse(texts))
}
