//! Fairness: so many pull Jobs at once, so many for one upstream host, first tries before retries.

use std::{
    borrow::Borrow,
    collections::{BTreeMap, BTreeSet},
};

use jiff::Timestamp;

use super::{facts::Queue, reference::RegistryHost, settings::Settings};

/// A cache whose run is open and whose Job is not made yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiter {
    pub uid: String,
    pub hosts: BTreeSet<RegistryHost>,
    /// Nothing failed since its last success or edit.
    pub first_try: bool,
    pub created: Timestamp,
}

impl Queue {
    /// The queue as one cache sees it. `running` are the hosts of each live pull Job of other caches, `waiting` the
    /// other caches that wait.
    pub fn of(
        running: &[BTreeSet<RegistryHost>],
        waiting: &[impl Borrow<Waiter>],
        me: &Waiter,
        settings: &Settings,
    ) -> Self {
        fn rank(waiter: &Waiter) -> (Timestamp, &str) {
            (waiter.created, &waiter.uid)
        }
        let mut queue = Self { running: u32::try_from(running.len()).unwrap_or(u32::MAX), ..Self::default() };
        count(&mut queue.per_host, running.iter().flatten());
        let before = |other: &&Waiter| {
            other.uid != me.uid && other.first_try && (!me.first_try || rank(other) < rank(me))
        };
        // One that waits for its host's share keeps nobody else from a slot.
        let mut then = queue.per_host.clone();
        let mut ahead: Vec<&Waiter> = waiting.iter().map(Borrow::borrow).filter(before).collect();
        ahead.sort_by(|a, b| rank(a).cmp(&rank(b)));
        for other in ahead {
            // More make no difference, and there may be thousands.
            if queue.running.saturating_add(queue.first_tries_ahead) >= settings.max_jobs {
                break;
            }
            if has_share(&then, &other.hosts, settings) {
                queue.first_tries_ahead += 1;
                count(&mut then, &other.hosts);
            }
        }
        queue
    }

    pub fn is_full(&self, settings: &Settings) -> bool {
        self.running >= settings.max_jobs
    }

    /// Whether a cache that pulls from these hosts may start its Job now.
    pub fn admits<'a>(&self, hosts: impl IntoIterator<Item = &'a RegistryHost>, settings: &Settings) -> bool {
        self.running.saturating_add(self.first_tries_ahead) < settings.max_jobs
            && has_share(&self.per_host, hosts, settings)
    }
}

fn count<'a>(into: &mut BTreeMap<RegistryHost, u32>, hosts: impl IntoIterator<Item = &'a RegistryHost>) {
    for host in hosts {
        *into.entry(host.clone()).or_default() += 1;
    }
}

fn has_share<'a>(
    per_host: &BTreeMap<RegistryHost, u32>,
    hosts: impl IntoIterator<Item = &'a RegistryHost>,
    settings: &Settings,
) -> bool {
    hosts
        .into_iter()
        .all(|host| per_host.get(host).is_none_or(|n| *n < settings.max_jobs_per_host.min(settings.max_jobs)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str) -> RegistryHost {
        name.parse().unwrap()
    }

    fn waiter(uid: &str, from: &str, first_try: bool, created: i64) -> Waiter {
        let created = Timestamp::from_second(created).unwrap();
        Waiter { uid: uid.into(), hosts: BTreeSet::from([host(from)]), first_try, created }
    }

    fn admitted(running: &[&str], waiting: &[Waiter], me: &Waiter) -> bool {
        let running: Vec<_> = running.iter().map(|h| BTreeSet::from([host(h)])).collect();
        let settings = Settings::default();
        Queue::of(&running, waiting, me, &settings).admits(&me.hosts, &settings)
    }

    #[test]
    fn slots_and_shares_are_limits() {
        let me = waiter("me", "slow.io", true, 5);
        assert!(admitted(&["a.io", "b.io", "slow.io"], &[], &me));
        assert!(!admitted(&["a.io", "b.io", "c.io", "d.io"], &[], &me));
        assert!(!admitted(&["slow.io"; 3], &[], &me), "one host may not take every slot");
    }

    #[test]
    fn first_tries_come_before_retries_and_in_order_of_age() {
        let older = waiter("older", "a.io", true, 1);
        let me = waiter("me", "b.io", true, 5);
        let retry = waiter("retry", "b.io", false, 0);
        let three = ["x.io", "y.io", "z.io"];
        assert!(!admitted(&three, std::slice::from_ref(&older), &me));
        assert!(admitted(&three, std::slice::from_ref(&me), &older));
        assert!(!admitted(&three, std::slice::from_ref(&me), &retry));
        assert!(admitted(&three, std::slice::from_ref(&retry), &me));
    }

    #[test]
    fn of_those_ahead_as_many_are_counted_as_matter() {
        let (settings, me) = (Settings::default(), waiter("me", "b.io", true, 5));
        let waiting: Vec<_> =
            (0..1000).map(|i| waiter(&i.to_string(), &format!("r{i}.io"), true, 1)).collect();
        let running = [BTreeSet::from([host("x.io")])];
        let queue = Queue::of(&running, &waiting, &me, &settings);
        assert_eq!((queue.first_tries_ahead, queue.admits(&me.hosts, &settings)), (3, false));
    }

    #[test]
    fn one_that_waits_for_its_host_keeps_nobody_else_waiting() {
        let blocked = waiter("blocked", "slow.io", true, 1);
        let me = waiter("me", "b.io", true, 5);
        assert!(admitted(&["slow.io"; 3], &[blocked], &me));
    }
}
