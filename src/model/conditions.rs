//! The conditions of a standing: four that are always there, and what else is known. A transition time moves only when the status of its condition does.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::stage::Standing;

pub const READY: &str = "Ready";
pub const AVAILABLE: &str = "Available";
pub const RECONCILING: &str = "Reconciling";
pub const STALLED: &str = "Stalled";
/// The registries answered when they were last asked what the tags mean. Only with content.
pub const FRESH: &str = "Fresh";
/// Only where snapshots are taken.
pub const SNAPSHOT: &str = "Snapshot";

/// A condition: type, whether it holds, reason and message.
pub(super) type Row<'a> = (&'static str, bool, &'a str, &'a str);

pub fn find<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == kind)
}

pub fn conditions(
    standing: &Standing,
    message: &str,
    more: &[Row<'_>],
    generation: i64,
    old: &[Condition],
    now: Timestamp,
) -> Vec<Condition> {
    let available = standing.is_available();
    let reason = standing.reason();
    let rows = [
        (READY, standing.is_ready(), reason, message),
        (
            AVAILABLE,
            available,
            if available { "ContentServed" } else { reason },
            if available { "the content is in the store" } else { message },
        ),
        (RECONCILING, standing.is_reconciling(), standing.reconciling_reason(), message),
        (STALLED, standing.is_stalled(), reason, message),
    ];
    let repeats = rows.len();
    rows.iter()
        .chain(more)
        .enumerate()
        .map(|(index, &(kind, holds, reason, message))| {
            // Only where it is asked for: the three beside Ready repeat it in their reasons.
            let message = if holds || kind == READY || index >= repeats { message } else { "" };
            one(kind, holds, reason, message, generation, old, now)
        })
        .collect()
}

pub fn one(
    kind: &str,
    holds: bool,
    reason: &str,
    message: &str,
    generation: i64,
    old: &[Condition],
    now: Timestamp,
) -> Condition {
    let status = if holds { "True" } else { "False" };
    let same = find(old, kind).filter(|condition| condition.status == status);
    Condition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: Some(generation),
        last_transition_time: same.map_or(Time(now), |condition| condition.last_transition_time.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{class::Class, stage::Stage};

    #[test]
    fn a_transition_time_moves_only_with_the_status() {
        let at = |s| Timestamp::from_second(s).unwrap();
        let standing =
            |stage, failure| Standing { stage, content: false, lost: false, failure, stalled: false };
        let first = conditions(&standing(Stage::Queued(None), None), "waits", &[], 1, &[], at(1));
        let retry = standing(Stage::Waiting, Some(Class::Network));
        let second = conditions(&retry, "no route", &[], 2, &first, at(2));
        assert!(second.iter().all(|c| c.last_transition_time.0 == at(1) && c.observed_generation == Some(2)));
        assert_eq!(
            find(&second, READY).map(|c| (c.reason.as_str(), c.message.as_str())),
            Some(("Network", "no route"))
        );
        let ready = Standing { content: true, ..standing(Stage::Ready, None) };
        let third = conditions(&ready, "1 image", &[], 2, &second, at(3));
        let moved: Vec<&str> =
            third.iter().filter(|c| c.last_transition_time.0 == at(3)).map(|c| c.type_.as_str()).collect();
        assert_eq!(moved, [READY, AVAILABLE, RECONCILING]);
    }
}
