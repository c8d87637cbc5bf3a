//! What commands say: results on standard output, everything for people's eyes on standard error.
//! A reader that went away is no reason to fail.

use std::io::Write as _;

/// A line of the result.
pub fn print(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{}", line.trim_end()).and_then(|()| out.flush());
}

/// A line for people.
pub fn tell(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}
