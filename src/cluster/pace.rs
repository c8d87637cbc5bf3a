//! Deletions by the operator, so many a second and no more: thousands of caches may expire in one minute, and each
//! takes its children along. A cache that has to wait is told for how long, and has its turn then.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

#[derive(Debug)]
pub struct Pacer {
    between: Duration,
    turns: Mutex<Turns>,
}

#[derive(Debug, Default)]
struct Turns {
    next: Option<Instant>,
    given: HashMap<String, Instant>,
}

impl Pacer {
    pub fn per_second(n: u32) -> Self {
        Self { between: Duration::from_secs(1) / n.max(1), turns: Mutex::default() }
    }

    /// It may go now, or has to wait for so long. Who waited and comes back in time does not wait again.
    pub(super) fn turn(&self, uid: &str) -> Result<(), Duration> {
        let (mut turns, now) = (self.turns(), Instant::now());
        let turn = if let Some(turn) = turns.given.get(uid) {
            *turn
        } else {
            let turn = turns.next.map_or(now, |next| next.max(now));
            turns.next = Some(turn + self.between);
            turn
        };
        if turn <= now {
            turns.given.remove(uid);
            return Ok(());
        }
        turns.given.insert(uid.to_owned(), turn);
        Err(turn - now)
    }

    /// Forgets caches that are gone.
    pub fn tidy(&self, there: impl Fn(&str) -> bool) {
        self.turns().given.retain(|uid, _| there(uid));
    }

    fn turns(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn thousands_at_once_get_their_turns_one_after_the_other() {
        let pace = Pacer::per_second(5);
        let start = Instant::now();
        let mut waiting: BTreeSet<(Duration, String)> =
            (0..5000).map(|i| (Duration::ZERO, i.to_string())).collect();
        let (mut asked, mut done) = (0, vec![]);
        while let Some((at, uid)) = waiting.pop_first() {
            tokio::time::advance(at.saturating_sub(start.elapsed())).await;
            asked += 1;
            match pace.turn(&uid) {
                Ok(()) => done.push(start.elapsed()),
                Err(wait) => _ = waiting.insert((start.elapsed() + wait, uid)),
            }
        }
        assert_eq!(asked, 2 * 5000 - 1, "each asks once, and comes back once");
        for second in 0..999 {
            let within = done.iter().filter(|at| at.as_secs() == second).count();
            assert_eq!(within, 5, "second {second}");
        }
        assert!(pace.turns().given.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_gone_is_forgotten_and_a_pause_is_not_made_up_for() {
        let pace = Pacer::per_second(1);
        assert_eq!(pace.turn("a"), Ok(()));
        assert_eq!(pace.turn("b"), Err(Duration::from_secs(1)));
        pace.tidy(|_| false);
        assert!(pace.turns().given.is_empty());
        tokio::time::advance(Duration::from_secs(100)).await;
        assert_eq!(pace.turn("c"), Ok(()));
        assert_eq!(pace.turn("d"), Err(Duration::from_secs(1)));
    }
}
