//! The ConfigMaps with defaults, as the watches last showed them. Three, each by its name.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, time::timeout};

use crate::model::profile::{Data, Profile};

/// Without the right to read one, work goes on without it.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    EciProfile,
    EksConfig,
    Placement,
}

impl Source {
    pub const ALL: [Self; 3] = [Self::EciProfile, Self::EksConfig, Self::Placement];
}

#[derive(Debug, Default)]
pub struct Profiles {
    seen: Mutex<Seen>,
    known: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct Seen {
    data: BTreeMap<Source, Option<Data>>,
    profile: Arc<Profile>,
}

impl Profiles {
    pub fn now(&self) -> Arc<Profile> {
        Arc::clone(&self.seen.lock().unwrap_or_else(PoisonError::into_inner).profile)
    }

    /// What a ConfigMap says now; `None` if it is not there. True if that is news.
    pub fn learn(&self, source: Source, data: Option<Data>) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let before = seen.data.insert(source, data);
        if before.flatten() == seen.data.get(&source).cloned().flatten() {
            self.known.send_replace(seen.data.len());
            return false;
        }
        let of = |source| seen.data.get(&source).and_then(Option::as_ref);
        let profile = Profile::read(of(Source::EciProfile), of(Source::EksConfig), of(Source::Placement));
        for problem in profile.problems.iter().filter(|problem| !seen.profile.problems.contains(problem)) {
            tracing::warn!("{problem}; it is left out");
        }
        let differs = *seen.profile != profile;
        seen.profile = Arc::new(profile);
        self.known.send_replace(seen.data.len());
        differs
    }

    /// Each was looked for once: else the first pulls would miss their defaults.
    pub async fn looked_for(&self) {
        let mut known = self.known.subscribe();
        let all = known.wait_for(|known| *known == Source::ALL.len());
        if !matches!(timeout(PATIENCE, all).await, Ok(Ok(_))) {
            tracing::warn!("not all ConfigMaps with defaults can be read; going on without them");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn defaults_are_waited_for_and_edits_are_news_once() {
        let profiles = Profiles::default();
        let data = |id: &str| Some(Data::from([("vSwitchIds".to_owned(), id.to_owned())]));
        assert!(profiles.learn(Source::EciProfile, data("vsw-1")));
        assert!(!profiles.learn(Source::EciProfile, data("vsw-1")));
        assert!(!profiles.learn(Source::EksConfig, None) && !profiles.learn(Source::Placement, None));
        profiles.looked_for().await;
        assert!(profiles.learn(Source::EciProfile, data("vsw-2")));
        assert_eq!(profiles.now().eci.subnets.as_ref().unwrap().value, ["vsw-2"]);
        assert!(profiles.learn(Source::EciProfile, None), "removed");
        assert_eq!(profiles.now().eci.subnets, None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_not_be_read_holds_up_nothing() {
        Profiles::default().looked_for().await;
    }
}
