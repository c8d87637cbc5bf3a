//! How tools read a status: kstatus, and the table of situations in docs/design.md. Every status that a test sees
//! goes through here.

use serde_json::Value;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kstatus {
    InProgress,
    Current,
    Failed,
}

/// A status that was found to keep the rules.
#[derive(Clone, Debug)]
pub struct Status {
    pub object: Value,
    pub kstatus: Kstatus,
}

impl Status {
    /// Reads an object; what breaks the table of situations is an error.
    pub fn of(object: &Value) -> Result<Self, String> {
        let status = Self { object: object.clone(), kstatus: Kstatus::InProgress };
        let kstatus = status.compute();
        let status = Self { kstatus, ..status };
        status.check().map_err(|why| format!("{why}: {}", status.object["status"]))?;
        Ok(status)
    }

    pub fn text(&self, pointer: &str) -> &str {
        self.object["status"].pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    pub fn number(&self, pointer: &str) -> i64 {
        self.object["status"].pointer(pointer).and_then(Value::as_i64).unwrap_or_default()
    }

    pub fn list(&self, field: &str) -> &[Value] {
        self.object["status"][field].as_array().map_or(&[], Vec::as_slice)
    }

    pub fn phase(&self) -> &str {
        self.text("/phase")
    }

    pub fn uid(&self) -> &str {
        self.object["metadata"]["uid"].as_str().unwrap_or_default()
    }

    pub fn generation(&self) -> i64 {
        self.object["metadata"]["generation"].as_i64().unwrap_or_default()
    }

    pub fn observed(&self) -> i64 {
        self.number("/observedGeneration")
    }

    /// Whether status speaks of the object as it is.
    pub fn is_current(&self) -> bool {
        self.observed() == self.generation()
    }

    pub fn condition(&self, kind: &str) -> Option<&Value> {
        self.list("conditions").iter().find(|condition| condition["type"] == kind)
    }

    pub fn holds(&self, kind: &str) -> bool {
        self.condition(kind).is_some_and(|condition| condition["status"] == "True")
    }

    /// Of the Ready condition.
    pub fn reason(&self) -> &str {
        self.ready("reason")
    }

    pub fn message(&self) -> &str {
        self.ready("message")
    }

    fn ready(&self, part: &str) -> &str {
        self.condition("Ready").and_then(|ready| ready[part].as_str()).unwrap_or_default()
    }

    /// As `sigs.k8s.io/cli-utils/pkg/kstatus` computes it for a type it does not know.
    fn compute(&self) -> Kstatus {
        if !self.is_current() || self.holds("Reconciling") {
            return Kstatus::InProgress;
        }
        if self.holds("Stalled") {
            return Kstatus::Failed;
        }
        match self.condition("Ready") {
            Some(ready) if ready["status"] != "True" => Kstatus::InProgress,
            _ => Kstatus::Current,
        }
    }

    /// The table of situations: what may stand beside what.
    fn check(&self) -> Result<(), String> {
        if self.observed() == -1 {
            return holds(
                self.kstatus == Kstatus::InProgress,
                "nobody looked at it, and it is not in progress",
            );
        }
        let flags = ["Ready", "Available", "Reconciling", "Stalled"].map(|kind| self.holds(kind));
        let [ready, _, reconciling, stalled] = flags;
        holds(self.list("conditions").len() >= 4, "a condition is missing")?;
        for condition in self.list("conditions") {
            let observed = condition["observedGeneration"].as_i64();
            holds(observed == Some(self.observed()), "a condition speaks of another generation than status")?;
            let said = condition["reason"].as_str().is_some_and(|reason| !reason.is_empty());
            holds(said, "a condition has no reason")?;
        }
        holds(self.observed() <= self.generation(), "it speaks of a generation that is not there yet")?;
        let states = [ready, reconciling, stalled].iter().filter(|flag| **flag).count();
        holds(states == 1, "not exactly one of Ready, Reconciling, Stalled")?;
        let wanted = match self.phase() {
            "Pending" | "Preparing" | "Creating" => [false, false, true, false],
            "Ready" => [true, true, false, false],
            "Failed" | "Expired" => [false, false, false, true],
            "Updating" => [false, true, true, false],
            "UpdateFailed" => [false, true, false, true],
            other => return Err(format!("unknown phase {other:?}")),
        };
        holds(flags == wanted, &format!("phase {} with conditions {flags:?}", self.phase()))?;
        let reason = if ready { "" } else { self.reason() };
        holds(self.text("/reason") == reason, "status.reason differs from the Ready condition's")?;
        holds(ready || !self.message().is_empty(), "nothing says why it is not ready")?;
        let percent = self.text("/progress").strip_suffix('%').and_then(|n| n.parse::<u8>().ok());
        let fits = percent.is_some_and(|percent| percent <= 100 && (percent < 100 || ready));
        holds(fits, "progress is no percentage, or is 100% too early")?;
        let id = self.text("/imageCacheId");
        holds(id.len() == 24 && id.starts_with("imc-"), "imageCacheId does not look like one")?;
        holds(self.list("events").len() <= 50, "more than 50 events")?;
        holds(self.object["status"].to_string().len() < 64 * 1024, "status is larger than 64 KiB")?;
        let kstatus = match (self.is_current(), ready, stalled) {
            (true, true, _) => Kstatus::Current,
            (true, _, true) => Kstatus::Failed,
            _ => Kstatus::InProgress,
        };
        holds(self.kstatus == kstatus, &format!("kstatus says {:?}, the table {kstatus:?}", self.kstatus))
    }
}

fn holds(fact: bool, else_say: &str) -> Result<(), String> {
    if fact { Ok(()) } else { Err(else_say.to_owned()) }
}
