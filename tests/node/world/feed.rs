//! What the API server says, as it says it: every version of every ImageCache goes through the kstatus helper, and
//! every Job is counted.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use serde::Deserialize;
use serde_json::Value;

use super::SYSTEM;
use crate::kit::{cluster::Cluster, guard::Guard, kstatus::Status};

/// Longer than the slowest retry of what a test repairs.
const PATIENCE: Duration = Duration::from_mins(9);

#[derive(Deserialize)]
struct Event {
    #[serde(rename = "type")]
    kind: String,
    object: Value,
}

/// Calls for each event from now on. The guard belongs to the process that is followed.
fn follow(cluster: &Cluster, what: &[&str], mut hear: impl FnMut(bool, Value) + Send + 'static) -> Guard {
    let watch = ["get", "--watch", "--output-watch-events", "-o", "json"];
    let mut guard = cluster.follow(&[&watch[..], what].concat());
    let output = guard.output().unwrap();
    thread::spawn(move || {
        for event in serde_json::Deserializer::from_reader(output).into_iter::<Event>() {
            let Ok(event) = event else { break };
            hear(event.kind == "DELETED", event.object);
        }
    });
    guard
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

pub struct Caches {
    shared: Arc<Shared>,
    _watch: Guard,
}

#[derive(Default)]
struct Shared {
    seen: Mutex<BTreeMap<String, Result<Status, String>>>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Result<Status, String>>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Caches {
    pub fn follow(cluster: &Cluster) -> Self {
        let shared = Arc::new(Shared::default());
        let heard = shared.clone();
        let watch = follow(cluster, &["imagecaches"], move |deleted, object| {
            let name = text(&object, "/metadata/name").to_owned();
            let mut seen = heard.lock();
            if deleted {
                seen.remove(&name);
            } else if !matches!(seen.get(&name), Some(Err(_))) {
                // The first thing that is wrong stays.
                seen.insert(name, Status::of(&object));
            }
            heard.changed.notify_all();
        });
        Self { shared, _watch: watch }
    }

    pub fn wait_for(&self, name: &str, what: &str, holds: impl Fn(&Status) -> bool) -> Status {
        let met = |seen: &BTreeMap<String, Result<Status, String>>| match seen.get(name) {
            Some(Ok(status)) => holds(status),
            Some(Err(_)) => true,
            None => false,
        };
        let (seen, waited) =
            self.shared.changed.wait_timeout_while(self.shared.lock(), PATIENCE, |seen| !met(seen)).unwrap();
        let last = seen.get(name).cloned();
        drop(seen);
        match last {
            Some(Ok(status)) if !waited.timed_out() => status,
            Some(Err(broken)) => panic!("{name} broke the table of situations: {broken}"),
            last => panic!(
                "{name} did not come to {what}: {:?}",
                last.map(|s| s.map(|s| s.object["status"].clone()))
            ),
        }
    }
}

/// The pull Jobs of each cache, by its UID.
pub struct Jobs {
    seen: Arc<Mutex<BTreeMap<String, Seen>>>,
    _watch: Guard,
}

#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Neither finished nor gone.
    live: BTreeSet<String>,
    /// Every name there ever was.
    pub names: BTreeSet<String>,
    /// How many were live at one time.
    pub most_live: usize,
}

impl Jobs {
    pub fn follow(cluster: &Cluster) -> Self {
        let seen: Arc<Mutex<BTreeMap<String, Seen>>> = Arc::default();
        let heard = seen.clone();
        let watch = follow(cluster, &["jobs", "-n", SYSTEM], move |deleted, job| {
            let name = text(&job, "/metadata/name").to_owned();
            let uid = job["metadata"]["labels"]["imagecaches.eci.alibabacloud.com/cache-uid"].as_str();
            let Some(uid) = uid else { return };
            let conditions = job["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let ended = |condition: &Value| {
                condition["status"] == "True"
                    && (condition["type"] == "Complete" || condition["type"] == "Failed")
            };
            let mut all = heard.lock().unwrap_or_else(PoisonError::into_inner);
            let seen = all.entry(uid.to_owned()).or_default();
            seen.names.insert(name.clone());
            if deleted || conditions.iter().any(ended) {
                seen.live.remove(&name);
            } else {
                seen.live.insert(name);
            }
            seen.most_live = seen.most_live.max(seen.live.len());
        });
        Self { seen, _watch: watch }
    }

    pub fn of(&self, uid: &str) -> Seen {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).get(uid).cloned().unwrap_or_default()
    }
}
