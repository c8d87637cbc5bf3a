//! Fairness: so many pull Jobs at once, so many for one upstream host, first tries before retries. An existing EIP
//! serves one pull at a time (ECI, "Enable internet access"). The operator's quotas keep caches waiting that have no
//! content yet; what is there is never taken away for them.

use std::{
    borrow::Borrow,
    collections::{BTreeMap, BTreeSet},
};

use jiff::Timestamp;

use super::{facts::Queue, reference::RegistryHost, settings::Settings, text};

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
    /// It has no content, and had none for what is asked: quotas are for those.
    pub fresh: bool,
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

/// What the operator's quotas are compared with: what other caches hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Those with content, and those whose pull is at work.
    pub caches: u32,
    pub bytes: u64,
}

impl Taken {
    /// Why one more has no room, if `more` get some before it.
    fn no_room(self, more: u32, settings: &Settings) -> Option<String> {
        let caches = self.caches.saturating_add(more);
        if let Some(most) = settings.max_caches.filter(|most| caches >= *most) {
            return Some(format!("waits for room: {caches} of {most} caches are there (--max-caches)"));
        }
        let most = settings.max_store_bytes.filter(|most| self.bytes >= *most)?;
        let (held, most) = (text::bytes(self.bytes), text::bytes(most));
        Some(format!("waits for room: the store holds {held} of {most} (--max-store-bytes)"))
    }
}

impl Queue {
    /// The queue as one cache sees it. `jobs` are those of other caches, `waiting` the other caches that wait.
    pub fn of(
        jobs: &[Running],
        waiting: &[impl Borrow<Waiter>],
        taken: Taken,
        me: &Waiter,
        settings: &Settings,
    ) -> Self {
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
        let mut fresh = 0;
        for other in ahead {
            // More make no difference, and there may be thousands.
            if queue.running.saturating_add(queue.first_tries_ahead) >= settings.max_jobs {
                break;
            }
            // Who waits for room keeps nobody waiting who needs none.
            if other.fresh && taken.no_room(fresh, settings).is_some() {
                continue;
            }
            if has_share(&then, &other.hosts, settings) && queue.held(&other.eips).is_none() {
                fresh += u32::from(other.fresh);
                queue.first_tries_ahead += 1;
                count(&mut then, &other.hosts);
                queue.eips.extend(held(&other.name, &other.eips));
            }
        }
        queue.no_room = me.fresh.then(|| taken.no_room(fresh, settings)).flatten();
        queue
    }

    /// What a cache waits for, where it is not just its turn.
    pub fn why(&self, eips: &BTreeSet<String>) -> Option<String> {
        self.no_room.clone().or_else(|| self.held(eips))
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
            && self.no_room.is_none()
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
        let eips = BTreeSet::new();
        Waiter { uid: uid.into(), name: uid.into(), hosts, eips, first_try, fresh: true, created }
    }

    fn job(from: &str) -> Running {
        Running { name: "other".into(), hosts: BTreeSet::from([host(from)]), ..Running::default() }
    }

    fn admitted(running: &[&str], waiting: &[Waiter], me: &Waiter) -> bool {
        let running: Vec<_> = running.iter().map(|h| job(h)).collect();
        let settings = Settings::default();
        Queue::of(&running, waiting, Taken::default(), me, &settings).admits(&me.hosts, &me.eips, &settings)
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
        let queue = Queue::of(&[job("x.io")], &waiting, Taken::default(), &me, &settings);
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
        let queue = Queue::of(&[over], std::slice::from_ref(&older), Taken::default(), &me, &settings);
        assert_eq!(
            (queue.running, queue.first_tries_ahead),
            (0, 0),
            "what waits for the address takes no slot"
        );
        let why = queue.held(&me.eips).unwrap();
        assert!(why.contains("eip-1") && why.contains("other"), "{why}");
        let queue = Queue::of(&[], &[older.clone(), other.clone()], Taken::default(), &me, &settings);
        assert!(queue.held(&me.eips).unwrap().contains("older"));
        assert!(
            Queue::of(&[], std::slice::from_ref(&me), Taken::default(), &older, &settings)
                .held(&eips)
                .is_none()
        );
        let held = Running { eips, ..job("a.io") };
        assert!(Queue::of(&[held], &[older, me], Taken::default(), &other, &settings).admits(
            &other.hosts,
            &other.eips,
            &settings
        ));
    }

    #[test]
    fn quotas_keep_new_caches_waiting_with_the_numbers_and_let_in_as_many_as_there_is_room_for() {
        let settings =
            Settings { max_caches: Some(3), max_store_bytes: Some(5 << 30), ..Settings::default() };
        let me = waiter("me", "b.io", true, 5);
        let older = waiter("older", "a.io", true, 1);
        let edited = Waiter { fresh: false, ..me.clone() };
        let taken = |caches, bytes| Taken { caches, bytes };
        let said = |waiting: &[Waiter], taken, me: &Waiter| {
            let queue = Queue::of(&[], waiting, taken, me, &settings);
            assert_eq!(queue.admits(&me.hosts, &me.eips, &settings), queue.why(&me.eips).is_none());
            queue.why(&me.eips)
        };
        assert_eq!(said(&[], taken(2, 0), &me), None);
        assert_eq!(
            said(&[], taken(3, 0), &me).unwrap(),
            "waits for room: 3 of 3 caches are there (--max-caches)"
        );
        assert_eq!(
            said(&[], taken(1, 5 << 30), &me).unwrap(),
            "waits for room: the store holds 5.0 GiB of 5.0 GiB (--max-store-bytes)"
        );
        assert!(
            said(std::slice::from_ref(&older), taken(2, 0), &me).is_some(),
            "the last place is the older one's"
        );
        assert_eq!(said(std::slice::from_ref(&older), taken(1, 0), &me), None);
        assert_eq!(said(&[], taken(9, 9 << 30), &edited), None, "what is there is not touched");
        let one = Settings { max_jobs: 1, ..settings.clone() };
        let queue = Queue::of(&[], &[older], taken(3, 0), &edited, &one);
        assert!(queue.admits(&edited.hosts, &edited.eips, &one), "who waits for room takes no slot");
    }
}
