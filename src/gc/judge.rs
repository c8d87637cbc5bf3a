//! Which roots live, which are condemned, and which condemned ones may go. Pure: `docs/store.md`, gc 2 and 3.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::{Duration, SystemTime},
};

use crate::{
    model::{
        collected::Broken,
        digest::Digest,
        live::{Credited, LiveList},
        request::CacheKey,
    },
    store::{Mark, condemned::RootName},
};

/// A root as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub root: RootName,
    pub state: State,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It can be read. Complete: everything it names is there; asked only where it decides.
    Intact { digest: Digest, complete: bool },
    /// It will never be readable.
    Damaged(String),
    /// It cannot be read now, or not by us: a newer version or a disk that recovers may.
    Unreadable(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    NotListed,
    Superseded { by: u64 },
    Damaged(String),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotListed => write!(f, "its ImageCache is gone"),
            Self::Superseded { by } => write!(f, "run {by} is newer and complete"),
            Self::Damaged(reason) => write!(f, "it cannot be read: {reason}"),
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    pub doomed: BTreeMap<RootName, Why>,
    /// Why no blob may be swept.
    pub refused: Vec<String>,
    /// What the cluster counts on and will never find here as it was.
    pub broken: Vec<Broken>,
}

/// Roots of caches made by hand are judged by the store itself, those of the cluster only by its list.
pub fn judge(found: &[Found], live: Option<&LiveList>) -> Judgement {
    let mut judgement = Judgement::default();
    let mut caches: BTreeMap<&CacheKey, BTreeMap<u64, &State>> = BTreeMap::new();
    for Found { root: (cache, run), state } in found {
        caches.entry(cache).or_default().insert(*run, state);
    }
    for (cache, runs) in &caches {
        let verdicts = match live {
            _ if cache.is_local() => by_hand(runs),
            None => continue,
            Some(list) => match list.caches.get(*cache) {
                None => runs.keys().map(|run| (*run, Why::NotListed)).collect(),
                Some(None) => damaged(runs),
                Some(Some(credited)) => match listed(runs, credited) {
                    Ok(verdicts) => verdicts,
                    Err(why) => {
                        judgement.refuse(cache, credited.run, &why);
                        continue;
                    }
                },
            },
        };
        judgement.doomed.extend(verdicts.into_iter().map(|(run, why)| (((*cache).clone(), run), why)));
    }
    let credits = live.into_iter().flat_map(|list| &list.caches);
    for (cache, credited) in credits.filter(|(cache, _)| !caches.contains_key(cache)) {
        if let Some(credited) = credited {
            judgement.refuse(cache, credited.run, &Missed::Gone("is missing"));
        }
    }
    judgement
}

/// Why a credited root does not count.
enum Missed {
    /// It will not come back.
    Gone(&'static str),
    /// A newer version, or a disk that recovers, may read it.
    Unreadable,
}

impl Judgement {
    fn refuse(&mut self, cache: &CacheKey, run: u64, why: &Missed) {
        let reason = match why {
            Missed::Gone(reason) => reason,
            Missed::Unreadable => "cannot be read",
        };
        self.refused.push(format!(
            "run {run} of cache {cache}, which the cluster counts on, {reason}: is this the right store?"
        ));
        if let Missed::Gone(reason) = why {
            self.broken.push(Broken { cache: cache.clone(), run, reason: (*reason).to_owned() });
        }
    }
}

type Verdicts = Vec<(u64, Why)>;

/// Of a cache made by hand the highest complete run lives, and what is above it: a pull may be at its last look.
fn by_hand(runs: &BTreeMap<u64, &State>) -> Verdicts {
    let complete = |state: &State| matches!(state, State::Intact { complete: true, .. });
    let best = runs.iter().rev().find(|(_, state)| complete(state)).map(|(run, _)| *run);
    let mut verdicts = damaged(runs);
    if let Some(best) = best {
        verdicts.extend(superseded(runs, best));
    }
    verdicts
}

/// Of a listed cache the credited run lives, and what is above it. Older ones go only while the credited one is what
/// the list says: after a restore of an old volume they may be all there is.
fn listed(runs: &BTreeMap<u64, &State>, credited: &Credited) -> Result<Verdicts, Missed> {
    match runs.get(&credited.run) {
        None => Err(Missed::Gone("is missing")),
        Some(State::Intact { digest, .. }) if *digest == credited.root => {
            let mut verdicts = damaged(runs);
            verdicts.extend(superseded(runs, credited.run));
            Ok(verdicts)
        }
        Some(State::Intact { .. }) => Err(Missed::Gone("is another one here")),
        Some(State::Damaged(_)) => Err(Missed::Gone("is damaged")),
        Some(State::Unreadable(_)) => Err(Missed::Unreadable),
    }
}

fn superseded(runs: &BTreeMap<u64, &State>, by: u64) -> Verdicts {
    // Not those that only we cannot read: that is a reason to wait.
    let older = runs.range(..by).filter(|(_, state)| matches!(state, State::Intact { .. }));
    older.map(|(run, _)| (*run, Why::Superseded { by })).collect()
}

fn damaged(runs: &BTreeMap<u64, &State>) -> Verdicts {
    let reason = |state: &State| match state {
        State::Damaged(reason) => Some(reason.clone()),
        _ => None,
    };
    runs.iter().filter_map(|(run, state)| Some((*run, Why::Damaged(reason(state)?)))).collect()
}

/// Whether a condemned root may go now: its mark is old enough, and for a root of the cluster the list is newer
/// than the mark, because the gc run whose report was read before the list was made had seen it. What is judged by
/// the store itself needs no list.
pub fn may_go(
    root: &RootName,
    mark: &Mark,
    seen: &BTreeSet<RootName>,
    now: SystemTime,
    age: Duration,
) -> bool {
    (root.0.is_local() || seen.contains(root)) && mark.since + age <= now
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(run: u64) -> Digest {
        Digest::sha256(&run.to_le_bytes())
    }

    /// `uid/run` is complete, `!` damaged, `?` unreadable, `-` incomplete.
    fn found(text: &str) -> Vec<Found> {
        let one = |word: &str| {
            let (root, state) = match word.split_at(word.len() - 1) {
                (root, "!") => (root, State::Damaged("x".into())),
                (root, "?") => (root, State::Unreadable("x".into())),
                (root, "-") => (root, State::Intact { digest: digest(0), complete: false }),
                _ => (word, State::Intact { digest: digest(0), complete: true }),
            };
            let (cache, run) = root.split_once('/').unwrap();
            let run = run.parse().unwrap();
            let state = match state {
                State::Intact { complete, .. } => State::Intact { digest: digest(run), complete },
                other => other,
            };
            Found { root: (cache.parse().unwrap(), run), state }
        };
        text.split_whitespace().map(one).collect()
    }

    fn live(text: &str) -> LiveList {
        let one = |word: &str| {
            let (cache, run) = word.split_once('/').unwrap();
            let credited = run.parse().ok().map(|run| Credited { run, root: digest(run) });
            (cache.parse().unwrap(), credited)
        };
        LiveList { store: String::new(), last_gc: None, caches: text.split_whitespace().map(one).collect() }
    }

    fn shown(judgement: &Judgement) -> String {
        let words: Vec<String> =
            judgement.doomed.keys().map(|(cache, run)| format!("{cache}/{run}")).collect();
        words.join(" ")
    }

    #[test]
    fn who_lives_and_who_goes() {
        for (roots, list, doomed, refused) in [
            // By hand, without a list: nothing of the cluster.
            ("a/1 a/2 b/1!", None, "", 0),
            ("local-a/1 local-a/2 local-a/3", None, "local-a/1 local-a/2", 0),
            ("local-a/1 local-a/2 local-a/3-", None, "local-a/1", 0),
            ("local-a/1- local-a/2-", None, "", 0),
            ("local-a/1 local-a/2! local-a/3", None, "local-a/1 local-a/2", 0),
            ("local-a/1! local-a/2?", None, "local-a/1", 0),
            ("local-a/1? local-a/2", None, "", 0),
            // With one.
            ("a/1 b/1", Some(""), "a/1 b/1", 0),
            ("a/1! b/1?", Some(""), "a/1 b/1", 0),
            ("local-a/1", Some(""), "", 0),
            ("a/1 a/2 a/3 a/4", Some("a/3"), "a/1 a/2", 0),
            ("a/1 a/2! a/3 a/4! a/5?", Some("a/3"), "a/1 a/2 a/4", 0),
            ("a/1 a/2", Some("a/-"), "", 0),
            ("a/1 a/2!", Some("a/-"), "a/2", 0),
            // What the cluster counts on is not as it should be: nothing of that cache goes, and no blob.
            ("a/1 b/1", Some("a/2"), "b/1", 1),
            ("a/1 a/2!", Some("a/2"), "", 1),
            ("a/1 a/2?", Some("a/2"), "", 1),
            ("", Some("a/2 b/1 c/-"), "", 2),
        ] {
            let list = list.map(live);
            let judgement = judge(&found(roots), list.as_ref());
            assert_eq!((shown(&judgement).as_str(), judgement.refused.len()), (doomed, refused), "{roots}");
        }
    }

    #[test]
    fn a_credited_root_with_other_content_refuses_and_says_which() {
        let mut list = live("a/2");
        list.caches.get_mut(&"a".parse().unwrap()).unwrap().as_mut().unwrap().root = digest(9);
        let judgement = judge(&found("a/1 a/2"), Some(&list));
        assert!(judgement.doomed.is_empty());
        assert_eq!(
            judgement.refused,
            ["run 2 of cache a, which the cluster counts on, is another one here: is this the right store?"]
        );
    }

    #[test]
    fn a_mark_is_acted_on_only_when_it_is_old_and_older_than_the_list() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let age = Duration::from_mins(10);
        let name = |cache: &str| (cache.parse().unwrap(), 1);
        let mark = |root: &RootName| Mark { root: root.clone(), since: at(1000), gc: "first".into() };
        for (cache, seen, now, goes) in [
            ("a", true, 1600, true),
            ("a", true, 1599, false),
            ("a", false, 9999, false),
            ("local-a", false, 1600, true),
            ("local-a", false, 1599, false),
        ] {
            let root = name(cache);
            let seen = if seen { BTreeSet::from([root.clone()]) } else { BTreeSet::new() };
            assert_eq!(may_go(&root, &mark(&root), &seen, at(now), age), goes, "{cache} at {now}");
        }
    }
}
