//! What a run of gc did, or would do: for people, and for the controller, which names the run in its next list. It
//! comes from a Job as a worker's report does: a termination message to decide by, and the whole in lines of the log.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{digest::Digest, lines, request::CacheKey, text};

/// Entries of a report's lists; what is beyond is counted only, so that a report stays small enough to be kept.
pub const MOST_ROOTS: usize = 2000;
pub const MOST_CACHES: usize = 200;
const MOST_REASONS: usize = 50;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    pub blobs: usize,
    pub bytes: u64,
}

impl Amount {
    pub fn of<'a>(sizes: impl IntoIterator<Item = &'a u64>) -> Self {
        let mut amount = Self::default();
        for size in sizes {
            amount.blobs += 1;
            amount.bytes = amount.bytes.saturating_add(*size);
        }
        amount
    }
}

/// Files that nobody needs any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remains {
    pub files: usize,
    pub bytes: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The name of this run.
    pub gc: String,
    /// Empty: the volume holds no store.
    pub store: String,
    /// Nothing was changed: the rest says what would be.
    pub dry_run: bool,
    /// It was given a list of living caches.
    #[serde(default)]
    pub listed: bool,
    /// When it began, by the clock of the volume, as all times here.
    pub at: Timestamp,
    /// Unlinked: space that the volume has again.
    pub freed: Amount,
    /// Unfinished downloads that nobody continues, removed.
    pub unfinished: Remains,
    /// Taken out by this run. A later run unlinks them, if nobody asks for them until then.
    pub taken_out: Amount,
    /// Given back, because somebody needs them again.
    pub put_back: Amount,
    /// In the trash now, what this run took out included.
    pub waiting: Amount,
    /// When the first of them may be unlinked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_until: Option<Timestamp>,
    /// Kept because roots name them.
    pub rooted: Amount,
    /// Kept because running or failed pulls name them.
    pub leased: Amount,
    /// Kept although nobody names them, because they came lately.
    pub young: Amount,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub young_until: Option<Timestamp>,
    pub live_roots: usize,
    pub removed_roots: usize,
    /// Roots that are marked and still there.
    pub condemned_roots: usize,
    /// When the first of them may be removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condemned_until: Option<Timestamp>,
    /// Leases whose owners are gone, removed.
    pub stale_leases: usize,
    /// Of the volume.
    pub capacity: u64,
    pub free: u64,
    /// Why no blob was swept. Nothing else is harmed by it.
    pub refused: Vec<String>,
    /// Roots that do not live.
    pub roots: Vec<RootReport>,
    /// Credited roots whose content is not there.
    pub broken: Vec<Broken>,
    /// The caches that hold the most.
    pub caches: Vec<CacheBytes>,
}

/// A root that does not live.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RootReport {
    pub cache: CacheKey,
    pub run: u64,
    pub why: String,
    pub removed: bool,
    /// When its file may be removed at the earliest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// A root that the list credits and the store does not have as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Broken {
    pub cache: CacheKey,
    pub run: u64,
    pub reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CacheBytes {
    pub cache: CacheKey,
    pub name: String,
    pub size: u64,
    /// Of these, bytes that other caches need too.
    pub shared: u64,
    pub freed_if_deleted: u64,
}

/// The termination message.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Termination {
    v: u8,
    /// SHA-256 over the texts of all result lines.
    sum: Digest,
    #[serde(flatten)]
    report: Report,
}

#[derive(Debug, thiserror::Error)]
#[error("the report of gc cannot be read: {0}")]
pub struct ReportError(String);

impl Report {
    /// All that a run changed.
    pub fn is_idle(&self) -> bool {
        let moved = self.freed.blobs + self.taken_out.blobs + self.put_back.blobs + self.unfinished.files;
        moved + self.removed_roots + self.stale_leases == 0
    }

    /// Its lists cut to what is kept and sent.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        self.roots.sort_by_key(|root| root.removed);
        self.roots.truncate(MOST_ROOTS);
        self.broken.truncate(MOST_ROOTS);
        self.caches.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.cache.cmp(&b.cache)));
        self.caches.truncate(MOST_CACHES);
        self.refused.truncate(MOST_REASONS);
        self
    }

    /// The `result` lines for the log, then the termination message.
    pub fn encode(&self) -> (Vec<String>, String) {
        let (lines, sum) = lines::split(&serde_json::to_string(self).unwrap_or_default());
        let brief = Self {
            roots: Vec::new(),
            broken: Vec::new(),
            caches: Vec::new(),
            refused: self.refused.iter().take(1).map(|reason| text::cut(reason, 500)).collect(),
            ..self.clone()
        };
        (lines, serde_json::to_string(&Termination { v: 1, sum, report: brief }).unwrap_or_default())
    }

    /// Reads a report back. Without the result lines the lists are lost, and nothing else.
    pub fn decode(termination: &str, log: &str) -> Result<Self, ReportError> {
        let seen: Termination = serde_json::from_str(termination).map_err(|e| ReportError(e.to_string()))?;
        if seen.v != 1 {
            return Err(ReportError(format!("version {}", seen.v)));
        }
        let whole = lines::join(log, &seen.sum).and_then(|text| serde_json::from_str(&text).ok());
        Ok(whole.unwrap_or(seen.report))
    }

    /// One sentence or two, for an event.
    pub fn summary(&self) -> String {
        let mut parts = vec![
            format!("{} freed", text::bytes(self.freed.bytes.saturating_add(self.unfinished.bytes))),
            format!(
                "{} kept for {}",
                text::bytes(self.rooted.bytes.saturating_add(self.leased.bytes)),
                text::count(self.live_roots, "living root")
            ),
        ];
        let until = |time: Option<Timestamp>| time.map(|time| format!(" from {time} on")).unwrap_or_default();
        if self.young.blobs > 0 {
            let bytes = text::bytes(self.young.bytes);
            parts.push(format!("{bytes} came lately and may go{}", until(self.young_until)));
        }
        if self.waiting.blobs > 0 {
            let bytes = text::bytes(self.waiting.bytes);
            parts.push(format!("{bytes} in the trash, freed{}", until(self.waiting_until)));
        }
        if self.condemned_roots > 0 {
            let roots = text::count(self.condemned_roots, "condemned root");
            parts.push(format!("{roots}, removed{}", until(self.condemned_until)));
        }
        if let Some(reason) = self.refused.first() {
            parts.push(format!("no blob was swept: {reason}"));
        }
        parts.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(n: u64) -> Report {
        let cache = |i: u64| CacheKey::of_uid(&format!("8f14e45f-ceea-467f-a0e6-{i:012}"));
        let root = |i| RootReport {
            cache: cache(i),
            run: i,
            why: "its ImageCache is gone".into(),
            removed: i % 2 == 0,
            until: Some(Timestamp::UNIX_EPOCH),
        };
        let bytes = |i| CacheBytes {
            cache: cache(i),
            name: format!("cache-{i}-{}", "x".repeat(200)),
            size: i,
            shared: 0,
            freed_if_deleted: i,
        };
        Report {
            gc: "0123".into(),
            store: "abcd".into(),
            freed: Amount { blobs: 2, bytes: 2048 },
            waiting: Amount { blobs: 1, bytes: 10 },
            waiting_until: Some(Timestamp::UNIX_EPOCH),
            rooted: Amount { blobs: 5, bytes: 5 << 20 },
            live_roots: 1,
            refused: (0..n).map(|i| format!("\"{i}\" {}", "y".repeat(1000))).collect(),
            roots: (0..n).map(root).collect(),
            broken: (0..n).map(|i| Broken { cache: cache(i), run: i, reason: "is missing".into() }).collect(),
            caches: (0..n).map(bytes).collect(),
            ..Report::default()
        }
    }

    #[test]
    fn a_report_comes_whole_among_other_lines_and_without_them_keeps_its_numbers() {
        let sent = report(30).bounded();
        let (lines, termination) = sent.encode();
        let log = format!("a table\n{}\nend", lines.join("\nnoise\n"));
        assert_eq!(Report::decode(&termination, &log).unwrap(), sent);
        let read = Report::decode(&termination, &lines[1..].join("\n")).unwrap();
        assert_eq!((read.gc, read.freed, read.roots.len()), (sent.gc, sent.freed, 0));
        assert_eq!(read.refused.len(), 1, "that it refused is known");
        assert!(Report::decode("another gc is at work", "").is_err());
    }

    #[test]
    fn the_largest_report_fits_where_kubernetes_keeps_it_and_into_a_config_map() {
        let sent = report(10_000).bounded();
        let (lines, termination) = sent.encode();
        assert!(termination.len() <= 4096, "{}", termination.len());
        assert!(lines.iter().all(|line| line.len() <= 16 * 1024) && lines.len() <= 150, "{}", lines.len());
        assert!(serde_json::to_string(&sent).unwrap().len() < 900 << 10);
        assert!(sent.roots.iter().all(|root| !root.removed), "what is still there comes before what went");
        assert_eq!(sent.caches[0].size, 9999, "the largest");
    }

    #[test]
    fn a_summary_says_what_went_what_stays_until_when_and_why() {
        assert_eq!(
            Report { refused: vec!["why".into()], ..report(0) }.summary(),
            "2.0 KiB freed; 5.0 MiB kept for 1 living root; 10 B in the trash, freed from 1970-01-01T00:00:00Z on; \
             no blob was swept: why"
        );
    }
}
