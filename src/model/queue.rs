//! Fairness: so many pull Jobs at once, so many for one upstream host, first tries before retries. An existing EIP
//! serves one pull at a time (ECI, "Enable internet access").

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
    pub name: String,
    pub hosts: BTreeSet<RegistryHost>,
    /// Existing addresses that it pulls through.
    pub eips: BTreeSet<String>,
    /// Nothing failed since its last success or edit.
    pub first_try: bool,
    pub created: Timestamp,
}

/// A pull Job of another cache.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Running {
    /// The cache's name.
    pub name: String,
    pub hosts: BTreeSet<RegistryHost>,
    pub eips: BTreeSet<String>,
    /// It is over, but its pod may still be there, and so what that holds.
    pub over: bool,
}

impl Queue {
    /// The queue as one cache sees it. `jobs` are those of other caches, `waiting` the other caches that wait.
    pub fn of(jobs: &[Running], waiting: &[impl Borrow<Waiter>], me: &Waiter, settings: &Settings) -> Self {
        fn rank(waiter: &Waiter) -> (Timestamp, &str) {
            (waiter.created, &waiter.uid)
        }
        let running: Vec<&Running> = jobs.iter().filter(|job| !job.over).collect();
        let mut queue = Self { running: u32::try_from(running.len()).unwrap_or(u32::MAX), ..Self::default() };
        count(&mut queue.per_host, running.iter().flat_map(|job| &job.hosts));
        let held = |name: &String, eips: &BTreeSet<String>| -> Vec<_> {
            eips.iter().map(|eip| (eip.clone(), name.clone())).collect()
        };
        queue.eips = jobs.iter().flat_map(|job| held(&job.name, &job.eips)).collect();
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
            if has_share(&then, &other.hosts, settings) && queue.held(&other.eips).is_none() {
                queue.first_tries_ahead += 1;
                count(&mut then, &other.hosts);
                queue.eips.extend(held(&other.name, &other.eips));
            }
        }
        queue
    }

    pub fn is_full(&self, settings: &Settings) -> bool {
        self.running >= settings.max_jobs
    }

    /// Whether a cache that pulls from these hosts, through these addresses, may start its Job now.
    pub fn admits<'a>(
        &self,
        hosts: impl IntoIterator<Item = &'a RegistryHost>,
        eips: &BTreeSet<String>,
        settings: &Settings,
    ) -> bool {
        self.running.saturating_add(self.first_tries_ahead) < settings.max_jobs
            && has_share(&self.per_host, hosts, settings)
            && self.held(eips).is_none()
    }

    /// Which of these addresses somebody else has, and who.
    pub fn held(&self, eips: &BTreeSet<String>) -> Option<String> {
        let (eip, name) = self.eips.iter().find(|(eip, _)| eips.contains(*eip))?;
        Some(format!("waits for {eip}: the pull of {name} uses it, and an EIP serves one pull at a time"))
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
        let hosts = BTreeSet::from([host(from)]);
        Waiter { uid: uid.into(), name: uid.into(), hosts, eips: BTreeSet::new(), first_try, created }
    }

    fn job(from: &str) -> Running {
        Running { name: "other".into(), hosts: BTreeSet::from([host(from)]), ..Running::default() }
    }

    fn admitted(running: &[&str], waiting: &[Waiter], me: &Waiter) -> bool {
        let running: Vec<_> = running.iter().map(|h| job(h)).collect();
        let settings = Settings::default();
        Queue::of(&running, waiting, me, &settings).admits(&me.hosts, &me.eips, &settings)
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
        let queue = Queue::of(&[job("x.io")], &waiting, &me, &settings);
        assert_eq!((queue.first_tries_ahead, queue.admits(&me.hosts, &me.eips, &settings)), (3, false));
    }

    #[test]
    fn one_that_waits_for_its_host_keeps_nobody_else_waiting() {
        let blocked = waiter("blocked", "slow.io", true, 1);
        let me = waiter("me", "b.io", true, 5);
        assert!(admitted(&["slow.io"; 3], &[blocked], &me));
    }

    #[test]
    fn an_address_serves_one_pull_at_a_time_in_order_of_age_and_keeps_nobody_else_waiting() {
        let settings = Settings::default();
        let eips = BTreeSet::from(["eip-1".to_owned()]);
        let older = Waiter { eips: eips.clone(), ..waiter("older", "a.io", true, 1) };
        let me = Waiter { eips: eips.clone(), ..waiter("me", "b.io", true, 5) };
        let other = waiter("other", "c.io", true, 9);
        let over = Running { over: true, eips: eips.clone(), ..job("a.io") };
        let queue = Queue::of(&[over], std::slice::from_ref(&older), &me, &settings);
        assert_eq!(
            (queue.running, queue.first_tries_ahead),
            (0, 0),
            "what waits for the address takes no slot"
        );
        let why = queue.held(&me.eips).unwrap();
        assert!(why.contains("eip-1") && why.contains("other"), "{why}");
        let queue = Queue::of(&[], &[older.clone(), other.clone()], &me, &settings);
        assert!(queue.held(&me.eips).unwrap().contains("older"));
        assert!(Queue::of(&[], std::slice::from_ref(&me), &older, &settings).held(&eips).is_none());
        let held = Running { eips, ..job("a.io") };
        assert!(Queue::of(&[held], &[older, me], &other, &settings).admits(
            &other.hosts,
            &other.eips,
            &settings
        ));
    }
}
