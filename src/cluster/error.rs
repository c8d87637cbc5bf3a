//! What can go wrong at the API server: what was tried, why it failed, and what that means for the next try.
//! Bodies of secrets never get here: an error keeps the server's words only where no secret was sent.

use std::time::Duration;

/// No call may hang its cache: since version 4 `kube` has no read time-out of its own.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {why}")]
pub struct Error {
    /// `create job imc-...-3`.
    pub what: String,
    pub why: Why,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    #[error("it is not there")]
    NotFound,
    #[error("it changed meanwhile and is read again")]
    Conflict,
    #[error("it exists already")]
    AlreadyExists,
    #[error("not allowed: {0}")]
    Forbidden(String),
    #[error("the API server refused it: {0}")]
    Refused(String),
    #[error("the API server cannot answer now: {0}")]
    Unavailable(String),
    #[error("no answer within {} s", CALL_TIMEOUT.as_secs())]
    Timeout,
    #[error("the API server cannot be reached: {0}")]
    Unreachable(String),
    #[error("an object of this name is there and is not owned by the ImageCache: remove it")]
    Foreign,
    #[error("this process is no longer the leader")]
    NotLeader,
    #[error("{0}")]
    Unusable(String),
    /// The registry's side said no; the next pass sees why and writes it down.
    #[error("{0}")]
    Login(String),
    #[error("its time has not come by the API server's clock")]
    NotDue,
    #[error("others are deleted first; its turn comes in {} s", .0.as_secs())]
    NotItsTurn(Duration),
}

impl Error {
    pub fn new(what: impl Into<String>, why: Why) -> Self {
        Self { what: what.into(), why }
    }

    /// For metrics: a fixed word.
    pub fn label(&self) -> &'static str {
        match self.why {
            Why::NotFound => "not_found",
            Why::Conflict => "conflict",
            Why::AlreadyExists => "already_exists",
            Why::Forbidden(_) => "forbidden",
            Why::Refused(_) => "refused",
            Why::Unavailable(_) => "unavailable",
            Why::Timeout => "timeout",
            Why::Unreachable(_) => "unreachable",
            Why::Foreign => "foreign",
            Why::NotLeader => "not_leader",
            Why::Unusable(_) => "unusable",
            Why::Login(_) => "login",
            Why::NotDue => "not_due",
            Why::NotItsTurn(_) => "not_its_turn",
        }
    }

    /// The same call may succeed later, with nothing changed.
    pub fn is_transient(&self) -> bool {
        matches!(self.why, Why::Unavailable(_) | Why::Timeout | Why::Unreachable(_))
    }

    /// Nothing is wrong with the API server: the next pass sees more and goes on from there.
    pub fn is_race(&self) -> bool {
        matches!(self.why, Why::Conflict | Why::NotLeader | Why::NotDue | Why::NotItsTurn(_) | Why::Login(_))
    }
}

/// Calls the API server within the time-out. `what` names the call for people.
pub async fn call<T>(
    what: impl Into<String>,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, Error> {
    match tokio::time::timeout(CALL_TIMEOUT, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(Error::new(what, why(&error))),
        Err(_) => Err(Error::new(what, Why::Timeout)),
    }
}

/// As [`call`], for requests and answers that hold secrets: the server's words are not repeated.
pub async fn call_secretly<T>(
    what: impl Into<String>,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, Error> {
    call(what, request).await.map_err(|error| match error.why {
        Why::Refused(_) => Error { why: Why::Refused("see its audit log".to_owned()), ..error },
        Why::Unavailable(_) => Error { why: Why::Unavailable("see its audit log".to_owned()), ..error },
        Why::Unreachable(_) => Error { why: Why::Unreachable("no usable answer".to_owned()), ..error },
        _ => error,
    })
}

/// "Not there" is an answer, not an error.
pub fn found<T>(answer: Result<T, Error>) -> Result<Option<T>, Error> {
    match answer {
        Err(Error { why: Why::NotFound, .. }) => Ok(None),
        other => other.map(Some),
    }
}

fn why(error: &kube::Error) -> Why {
    let kube::Error::Api(status) = error else {
        return Why::Unreachable(error.to_string());
    };
    if status.is_already_exists() {
        Why::AlreadyExists
    } else if status.is_conflict() {
        Why::Conflict
    } else if status.is_not_found() {
        Why::NotFound
    } else if status.is_forbidden() {
        Why::Forbidden(status.message.clone())
    } else {
        let words = format!("{} {}: {}", status.code, status.reason, status.message);
        if status.code == 429 || status.code >= 500 { Why::Unavailable(words) } else { Why::Refused(words) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: u16, reason: &str) -> kube::Error {
        let status = kube::core::Status::failure("the words of the server", reason).with_code(code);
        kube::Error::Api(Box::new(status))
    }

    #[test]
    fn an_answer_becomes_what_it_means_for_the_next_try() {
        assert_eq!(why(&refused(409, "AlreadyExists")), Why::AlreadyExists);
        assert_eq!(why(&refused(409, "Conflict")), Why::Conflict);
        assert_eq!(why(&refused(404, "NotFound")), Why::NotFound);
        assert!(matches!(why(&refused(403, "Forbidden")), Why::Forbidden(_)));
        assert!(matches!(why(&refused(422, "Invalid")), Why::Refused(_)));
        for (code, later) in [(422, false), (401, false), (403, false), (429, true), (500, true), (503, true)]
        {
            let error = Error::new("get x", why(&refused(code, "Other")));
            assert_eq!(error.is_transient(), later, "{error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_never_answers_is_given_up() {
        let error = call("get job x", std::future::pending::<kube::Result<()>>()).await.unwrap_err();
        assert_eq!(error.to_string(), "get job x: no answer within 10 s");
    }

    #[tokio::test]
    async fn what_the_server_says_about_a_secret_is_not_repeated() {
        for code in [422, 503] {
            let error =
                call_secretly("create secret x", async { Err::<(), _>(refused(code, "Other")) }).await;
            assert!(!error.unwrap_err().to_string().contains("words"));
        }
    }
}
