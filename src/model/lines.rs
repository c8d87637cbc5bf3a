//! A text of any length through the log of a pod: numbered lines that container runtimes do not split, found again
//! among other lines and checked by a hash that comes another way. Any of them may be lost.

use serde::{Deserialize, Serialize};

use super::digest::Digest;

/// Container runtimes split log lines at 16 KiB; JSON quoting can nearly double a text.
const CHUNK: usize = 6 * 1024;
/// More lines than this are no report of ours.
const MOST: usize = 1024;
/// Each line begins with this, so that other log lines are never taken for one.
const MARK: &str = "{\"report\":";

#[derive(Serialize, Deserialize)]
#[serde(tag = "report", rename_all = "camelCase")]
enum Line {
    Result { n: usize, of: usize, text: String },
}

/// The lines, and the hash of the text.
pub fn split(text: &str) -> (Vec<String>, Digest) {
    let chunks = chunks(text);
    let of = chunks.len();
    let line = |(n, text): (usize, &&str)| {
        serde_json::to_string(&Line::Result { n, of, text: (*text).to_owned() }).unwrap_or_default()
    };
    (chunks.iter().enumerate().map(line).collect(), Digest::sha256(text.as_bytes()))
}

/// The text again, if all of its lines are there.
pub fn join(log: &str, sum: &Digest) -> Option<String> {
    let mut parts: Vec<Option<String>> = Vec::new();
    for line in log.lines().filter(|line| line.starts_with(MARK)) {
        if let Ok(Line::Result { n, of, text }) = serde_json::from_str(line)
            && n < of
            && of <= MOST
        {
            parts.resize(of, None);
            parts[n] = Some(text);
        }
    }
    let text: String = parts.into_iter().collect::<Option<Vec<_>>>()?.concat();
    (Digest::sha256(text.as_bytes()) == *sum).then_some(text)
}

fn chunks(text: &str) -> Vec<&str> {
    let mut rest = text;
    let mut chunks = Vec::new();
    while !rest.is_empty() {
        let (chunk, tail) = rest.split_at(rest.floor_char_boundary(CHUNK));
        chunks.push(chunk);
        rest = tail;
    }
    chunks
}
