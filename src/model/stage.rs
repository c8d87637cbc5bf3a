//! Where a cache stands, and what is said of it: phase, reason and the four conditions, by the table of situations
//! in docs/design.md. Outputs only: nothing here is ever read back as input.

use super::class::Class;

/// Computed at each pass by an ordered list of checks (`plan`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The object asks for something that is not valid: why.
    Invalid(String),
    /// Past its retention, and kept.
    Expired,
    /// A named pull secret is missing or may not be used: why. `None`: as before.
    SecretMissing(Option<String>),
    /// Waits for a slot, or for what another pull holds: what that is.
    Queued(Option<String>),
    /// No bytes yet, and what holds it up.
    Preparing(Option<String>),
    Pulling {
        percent: u8,
    },
    /// A run failed and the next is not due yet.
    Waiting,
    /// Complete, and the snapshot that readiness waits for is not: what keeps it, and whether that lasts.
    Snapshotting {
        failure: Option<Class>,
        stalled: bool,
    },
    Ready,
}

/// A stage and what surrounds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    pub stage: Stage,
    /// Credited content is there.
    pub content: bool,
    /// It was ready for these very inputs, and the content is gone.
    pub lost: bool,
    /// The newest failure since the last success or edit.
    pub failure: Option<Class>,
    /// That streak counts as permanent.
    pub stalled: bool,
}

impl Standing {
    pub fn is_ready(&self) -> bool {
        self.stage == Stage::Ready
    }

    pub fn is_available(&self) -> bool {
        self.content && self.stage != Stage::Expired
    }

    pub fn is_stalled(&self) -> bool {
        match self.stage {
            Stage::Invalid(_) | Stage::Expired | Stage::SecretMissing(_) => true,
            Stage::Ready => false,
            Stage::Snapshotting { stalled, .. } => stalled,
            _ => self.stalled,
        }
    }

    /// kstatus: never together with stalled.
    pub fn is_reconciling(&self) -> bool {
        !self.is_ready() && !self.is_stalled()
    }

    pub fn phase(&self) -> &'static str {
        let first_try = self.failure.is_none() && !self.lost;
        match &self.stage {
            Stage::Ready => "Ready",
            Stage::Expired => "Expired",
            _ if self.is_stalled() => {
                if self.content {
                    "UpdateFailed"
                } else {
                    "Failed"
                }
            }
            _ if self.content => "Updating",
            Stage::Queued(_) if first_try => "Pending",
            Stage::Preparing(_) if first_try => "Preparing",
            _ => "Creating",
        }
    }

    /// The reason of the Ready condition.
    pub fn reason(&self) -> &'static str {
        match (&self.stage, self.failure) {
            (Stage::Ready, _) => "Complete",
            (Stage::Expired, _) => "Expired",
            (Stage::Invalid(_), _) => Class::InvalidSpec.as_str(),
            (Stage::SecretMissing(_), _) => Class::SecretMissing.as_str(),
            (Stage::Snapshotting { failure, .. }, _) => failure.map_or("Snapshotting", Class::as_str),
            (_, Some(class)) => class.as_str(),
            _ if self.content => "Updating",
            _ if self.lost => "ContentLost",
            (Stage::Queued(_), None) => "Queued",
            (Stage::Preparing(_), None) => "Preparing",
            (Stage::Pulling { .. } | Stage::Waiting, None) => "Pulling",
        }
    }

    pub fn reconciling_reason(&self) -> &'static str {
        let failure = match self.stage {
            Stage::Snapshotting { failure, .. } => failure,
            _ => self.failure,
        };
        if self.is_reconciling() && failure.is_some() { "ProgressingWithRetry" } else { self.reason() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Row {
        name: &'static str,
        stage: Stage,
        content: bool,
        lost: bool,
        failure: Option<(Class, bool)>,
        /// Phase, reason of Ready, then Ready, Available, Reconciling, Stalled.
        says: (&'static str, &'static str, [bool; 4]),
    }

    const T: bool = true;
    const F: bool = false;

    fn rows() -> Vec<Row> {
        let row =
            |name, stage, content, lost, failure, says| Row { name, stage, content, lost, failure, says };
        let pulling = || Stage::Pulling { percent: 7 };
        let snapshot = |failure, stalled| Stage::Snapshotting { failure, stalled };
        let transient = Some((Class::Network, false));
        let stalled = Some((Class::Network, true));
        let auth = Some((Class::Auth, true));
        vec![
            row("waits for a slot", Stage::Queued(None), F, F, None, ("Pending", "Queued", [F, F, T, F])),
            row("Job made", Stage::Preparing(None), F, F, None, ("Preparing", "Preparing", [F, F, T, F])),
            row("bytes move", pulling(), F, F, None, ("Creating", "Pulling", [F, F, T, F])),
            row("complete", Stage::Ready, T, F, None, ("Ready", "Complete", [T, T, F, F])),
            row("transient failure", Stage::Waiting, F, F, transient, ("Creating", "Network", [F, F, T, F])),
            row(
                "its retry waits",
                Stage::Queued(None),
                F,
                F,
                transient,
                ("Creating", "Network", [F, F, T, F]),
            ),
            row("its retry pulls", pulling(), F, F, transient, ("Creating", "Network", [F, F, T, F])),
            row("permanent failure", Stage::Waiting, F, F, auth, ("Failed", "Auth", [F, F, F, T])),
            row("stays so in its retry", pulling(), F, F, auth, ("Failed", "Auth", [F, F, F, T])),
            row("transient for long", Stage::Waiting, F, F, stalled, ("Failed", "Network", [F, F, F, T])),
            row("invalid", Stage::Invalid("x".into()), F, F, None, ("Failed", "InvalidSpec", [F, F, F, T])),
            row(
                "invalid edit",
                Stage::Invalid("x".into()),
                T,
                F,
                None,
                ("UpdateFailed", "InvalidSpec", [F, T, F, T]),
            ),
            row(
                "secret missing",
                Stage::SecretMissing(None),
                F,
                F,
                None,
                ("Failed", "SecretMissing", [F, F, F, T]),
            ),
            row(
                "secret of an edit missing",
                Stage::SecretMissing(None),
                T,
                F,
                None,
                ("UpdateFailed", "SecretMissing", [F, T, F, T]),
            ),
            row("edited", pulling(), T, F, None, ("Updating", "Updating", [F, T, T, F])),
            row("edited, waits", Stage::Queued(None), T, F, None, ("Updating", "Updating", [F, T, T, F])),
            row("edit fails", Stage::Waiting, T, F, transient, ("Updating", "Network", [F, T, T, F])),
            row("edit failed for good", Stage::Waiting, T, F, auth, ("UpdateFailed", "Auth", [F, T, F, T])),
            row("store lost the bytes", pulling(), F, T, None, ("Creating", "ContentLost", [F, F, T, F])),
            row("lost, waits", Stage::Queued(None), F, T, None, ("Creating", "ContentLost", [F, F, T, F])),
            row("lost again, waits", Stage::Waiting, F, T, None, ("Creating", "ContentLost", [F, F, T, F])),
            row("snapshot made", snapshot(None, F), F, F, None, ("Creating", "Snapshotting", [F, F, T, F])),
            row("after an edit", snapshot(None, F), T, F, None, ("Updating", "Snapshotting", [F, T, T, F])),
            row(
                "its export fails",
                snapshot(Some(Class::NoSpace), F),
                F,
                F,
                None,
                ("Creating", "NoSpace", [F, F, T, F]),
            ),
            row(
                "and goes on to fail",
                snapshot(Some(Class::Snapshot), T),
                F,
                F,
                None,
                ("Failed", "Snapshot", [F, F, F, T]),
            ),
            row("expired, kept", Stage::Expired, F, F, None, ("Expired", "Expired", [F, F, F, T])),
        ]
    }

    #[test]
    fn every_situation_says_what_the_design_says() {
        for row in rows() {
            let standing = Standing {
                stage: row.stage,
                content: row.content,
                lost: row.lost,
                failure: row.failure.map(|(class, _)| class),
                stalled: row.failure.is_some_and(|(_, stalled)| stalled),
            };
            let flags = [
                standing.is_ready(),
                standing.is_available(),
                standing.is_reconciling(),
                standing.is_stalled(),
            ];
            assert_eq!((standing.phase(), standing.reason(), flags), row.says, "{}", row.name);
            let retry = standing.reconciling_reason() == "ProgressingWithRetry";
            let fails = standing.failure.is_some() || row.says.1 == "NoSpace";
            assert_eq!(retry, standing.is_reconciling() && fails, "{}", row.name);
        }
    }
}
