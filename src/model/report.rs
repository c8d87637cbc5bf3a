//! What a worker tells the controller, and how it survives the way: lines in the pod's log while it runs, and at
//! the end a termination message of at most 4096 bytes (the kubelet keeps no more) with fixed-size records, plus
//! numbered `result` lines that hold the rest. All of it may be lost: then the Job is run again.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{class::Class, digest::Digest, failure::Failure, lines, reference::Reference};

/// Every report line begins with this, so that other log lines are never taken for one.
const MARK: &str = "{\"report\":";

/// Bytes of one image, or of all. `done` includes `reused` and never goes back within one run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bytes {
    pub done: u64,
    pub total: u64,
    pub reused: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    pub all: Bytes,
    /// By index of the request's images. An image that is not resolved yet has a total of 0.
    pub images: Vec<Bytes>,
}

/// How fast bytes come, and how long the rest takes at that; nothing where it is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Speed {
    /// Bytes a second over the last ten seconds. What is reused does not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds_left: Option<u64>,
}

/// Beside a [`Progress`]. For those who watch: the controller reads bytes only, so that no rate is ever written into
/// an object, where it would be old at once and cost a write a second.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    pub all: Speed,
    pub images: Vec<Speed>,
}

/// By which right stored bytes are used without being fetched (docs/design.md, "Permission").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// This cache held them from that repository with these credentials.
    Held,
    /// They belong to an image that is proved public.
    Public,
    /// The registry they came from says that these credentials may have them.
    Asked,
}

/// Reused bytes, by right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReusedBy {
    pub held: u64,
    pub public: u64,
    pub asked: u64,
    /// Another image of the same run brought them.
    pub same_run: u64,
}

impl ReusedBy {
    pub fn of(&mut self, right: Right) -> &mut u64 {
        match right {
            Right::Held => &mut self.held,
            Right::Public => &mut self.public,
            Right::Asked => &mut self.asked,
        }
    }
}

/// What became of one image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageOutcome {
    pub reference: Reference,
    /// Digest of the manifest or index the reference meant.
    pub digest: Option<Digest>,
    /// Bytes of the whole closure.
    pub size: u64,
    pub pulled: u64,
    pub reused: u64,
    #[serde(default)]
    pub reused_by: ReusedBy,
    /// Answered without credentials by the real host: everybody may have it.
    #[serde(default)]
    pub public: bool,
    /// When the registry last said that the reference means this digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved: Option<Timestamp>,
    pub failure: Option<Failure>,
}

/// What became of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    pub run: u64,
    pub store: String,
    /// Digest of the root file; present means complete, durable and verified.
    pub root: Option<Digest>,
    /// Logical bytes of the cache: every digest once.
    pub size: u64,
    /// The oldest answer of a registry, and the oldest proof that an image is public, that the content rests on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proved: Option<Timestamp>,
    pub images: Vec<ImageOutcome>,
    /// Why the run failed: of the first image that failed, or of the run itself.
    pub failure: Option<Failure>,
    /// The store refused this run because it has a root of a higher one: the controller lost its count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub higher_run: Option<u64>,
    #[serde(default)]
    pub notices: Vec<String>,
}

/// What is read; a progress line holds more than this, for others.
#[derive(Serialize, Deserialize)]
#[serde(tag = "report", rename_all = "camelCase")]
enum Line {
    Progress {
        #[serde(flatten)]
        progress: Progress,
    },
}

/// The termination message: enough to decide by, whatever happens to the log.
#[derive(Serialize, Deserialize)]
struct Termination {
    v: u8,
    run: u64,
    store: String,
    root: Option<Digest>,
    size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    resolved: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    proved: Option<Timestamp>,
    class: Option<Class>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    higher_run: Option<u64>,
    /// SHA-256 over the texts of all result lines.
    sum: Digest,
    images: Vec<ImageRecord>,
}

/// Digest, size, pulled, reused, public, class of its failure.
type ImageRecord = (Option<Digest>, u64, u64, u64, bool, Option<Class>);

#[derive(Debug, thiserror::Error)]
#[error("the worker's termination message cannot be read: {0}")]
pub struct ReportError(String);

/// One line; in each place the bytes, and how fast they come.
pub fn progress_line(progress: &Progress, pace: &Pace) -> String {
    #[derive(Serialize)]
    struct Moving {
        #[serde(flatten)]
        bytes: Bytes,
        #[serde(flatten)]
        speed: Speed,
    }
    #[derive(Serialize)]
    struct Told {
        report: &'static str,
        all: Moving,
        images: Vec<Moving>,
    }
    let speeds = pace.images.iter().copied().chain(std::iter::repeat(Speed::default()));
    let moving = |(bytes, speed)| Moving { bytes, speed };
    let images = progress.images.iter().copied().zip(speeds).map(moving).collect();
    let told = Told { report: "progress", all: moving((progress.all, pace.all)), images };
    serde_json::to_string(&told).unwrap_or_default()
}

/// The newest progress in a piece of a log.
pub fn last_progress(log: &str) -> Option<Progress> {
    log.lines().rev().find_map(|line| parse_line(line).map(|Line::Progress { progress }| progress))
}

fn parse_line(line: &str) -> Option<Line> {
    line.starts_with(MARK).then(|| serde_json::from_str(line).ok()).flatten()
}

impl Outcome {
    /// The `result` lines for the log, then the termination message.
    pub fn encode(&self) -> (Vec<String>, String) {
        let (lines, sum) = lines::split(&serde_json::to_string(self).unwrap_or_default());
        let image = |i: &ImageOutcome| {
            (i.digest.clone(), i.size, i.pulled, i.reused, i.public, i.failure.as_ref().map(|f| f.class))
        };
        let termination = Termination {
            v: 1,
            run: self.run,
            store: self.store.clone(),
            root: self.root.clone(),
            size: self.size,
            resolved: self.resolved,
            proved: self.proved,
            class: self.failure.as_ref().map(|f| f.class),
            higher_run: self.higher_run,
            sum,
            images: self.images.iter().map(image).collect(),
        };
        (lines, serde_json::to_string(&termination).unwrap_or_default())
    }

    /// Reads a report back. `images` are those of the request; without the result lines the messages are the
    /// phrases of the classes.
    pub fn decode(termination: &str, log: &str, images: &[Reference]) -> Result<Self, ReportError> {
        let seen: Termination = serde_json::from_str(termination).map_err(|e| ReportError(e.to_string()))?;
        if seen.v != 1 || seen.images.len() > images.len() {
            return Err(ReportError(format!("version {} with {} images", seen.v, seen.images.len())));
        }
        if let Some(whole) = lines::join(log, &seen.sum).and_then(|text| serde_json::from_str(&text).ok()) {
            return Ok(whole);
        }
        let failure = |class: Class| Failure::new(class, class.phrase());
        let image = |(reference, (digest, size, pulled, reused, public, class)): (
            &Reference,
            (_, _, _, _, _, Option<Class>),
        )| ImageOutcome {
            reference: reference.clone(),
            digest,
            size,
            pulled,
            reused,
            reused_by: ReusedBy::default(),
            public,
            resolved: seen.resolved.filter(|_| class.is_none()),
            failure: class.map(failure),
        };
        Ok(Self {
            run: seen.run,
            store: seen.store,
            root: seen.root,
            size: seen.size,
            resolved: seen.resolved,
            proved: seen.proved,
            images: images.iter().zip(seen.images).map(image).collect(),
            failure: seen.class.map(failure),
            higher_run: seen.higher_run,
            notices: Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(message: &str) -> Outcome {
        let image = |i: usize| ImageOutcome {
            reference: format!("registry.example.com/team/app-{i}:1").parse().unwrap(),
            digest: Some(Digest::sha256(&[u8::try_from(i).unwrap()])),
            size: u64::from(u32::MAX) * 1000,
            pulled: u64::from(u32::MAX) * 1000,
            reused: u64::from(u32::MAX) * 1000,
            reused_by: ReusedBy { held: 7, ..ReusedBy::default() },
            public: false,
            resolved: Some(Timestamp::MAX),
            failure: Some(Failure::new(Class::SignatureInvalid, message)),
        };
        Outcome {
            run: 7,
            store: "0123456789abcdef0123456789abcdef".into(),
            root: None,
            size: u64::MAX,
            resolved: Some(Timestamp::MAX),
            proved: Some(Timestamp::MAX),
            images: (0..20).map(image).collect(),
            failure: Some(Failure::new(Class::Auth, message)),
            higher_run: Some(u64::MAX),
            notices: vec!["é".repeat(5000)],
        }
    }

    fn references(outcome: &Outcome) -> Vec<Reference> {
        outcome.images.iter().map(|i| i.reference.clone()).collect()
    }

    #[test]
    fn the_largest_report_fits_where_kubernetes_keeps_it() {
        let (lines, termination) = outcome(&"\"".repeat(600)).encode();
        assert!(termination.len() <= 4096, "{}", termination.len());
        assert!(lines.iter().all(|line| line.len() <= 16 * 1024));
    }

    #[test]
    fn a_report_is_read_back_whole_among_other_log_lines() {
        let sent = outcome("denied");
        let (lines, termination) = sent.encode();
        let log = format!("noise\n{}\n{{\"level\":\"info\"}}", lines.join("\nnoise\n"));
        assert_eq!(Outcome::decode(&termination, &log, &references(&sent)).unwrap(), sent);
    }

    #[test]
    fn without_its_log_lines_a_report_still_says_class_digest_and_sizes() {
        let sent = outcome("denied");
        let (lines, termination) = sent.encode();
        for log in [String::new(), lines[1..].join("\n"), lines.join("\n").replace("denied", "granted")] {
            let read = Outcome::decode(&termination, &log, &references(&sent)).unwrap();
            assert_eq!(read.failure.as_ref().unwrap().class, Class::Auth);
            assert_eq!(read.images[3].digest, sent.images[3].digest);
            assert_eq!(read.images[3].failure.as_ref().unwrap().message, Class::SignatureInvalid.phrase());
        }
        assert!(Outcome::decode("OOM", "", &[]).is_err());
    }

    #[test]
    fn the_newest_progress_line_counts() {
        let bytes = |done| Bytes { done, total: 9, reused: 0 };
        let line = |done| {
            let speed = Speed { rate: Some(3), seconds_left: None };
            let pace = Pace { all: speed, images: vec![] };
            progress_line(&Progress { all: bytes(done), images: vec![bytes(done)] }, &pace)
        };
        assert_eq!(
            line(1),
            r#"{"report":"progress","all":{"done":1,"total":9,"reused":0,"rate":3},"images":[{"done":1,"total":9,"reused":0}]}"#
        );
        let log = format!("{}\n{}\n{{\"report\":\"progress\",\"al", line(1), line(2));
        let read = last_progress(&log).unwrap();
        assert_eq!((read.all, read.images), (bytes(2), vec![bytes(2)]));
        assert_eq!(last_progress("nothing"), None);
    }
}
