//! Sentences for people, bounded so that a whole status stays small.

use super::{
    advice::advice, class::Class, failure::Failure, reference::Reference, report::Outcome, request::Dialect,
};

/// Cuts a text so that its JSON form is at most `most` bytes between the quotes, and shows it by an ellipsis.
pub fn cut(text: &str, most: usize) -> String {
    let width = |c: char| if matches!(c, '"' | '\\') { 2 } else { c.len_utf8() };
    let clean = || text.chars().map(|c| if c.is_control() { ' ' } else { c });
    if clean().map(width).sum::<usize>() <= most {
        return clean().collect();
    }
    let mut room = most.saturating_sub('…'.len_utf8());
    let fits = |c: &char| {
        let fits = width(*c) <= room;
        room = room.saturating_sub(width(*c));
        fits
    };
    clean().take_while(fits).chain(['…']).collect()
}

pub fn bytes(n: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    UNITS
        .iter()
        .find(|(unit, _)| n >= *unit)
        .map_or(format!("{n} B"), |(unit, name)| format!("{:.1} {name}", n as f64 / *unit as f64))
}

pub fn count(n: usize, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}

pub fn images(n: usize) -> String {
    count(n, "image")
}

/// What a failed run says: the image, the reason, and what to do about it.
pub fn failed(failure: &Failure, outcome: Option<&Outcome>, dialect: Dialect) -> String {
    let image = outcome.and_then(|outcome| outcome.images.iter().find(|image| image.failure.is_some()));
    let reference = image.map(|image| &image.reference);
    let message = match reference.map(ToString::to_string) {
        Some(name) if !failure.message.contains(&name) => format!("{name}: {}", failure.message),
        _ => failure.message.clone(),
    };
    let message = match searched_for(failure.class) {
        Some(phrase) if !message.contains(phrase) => format!("{message} ({phrase})"),
        _ => message,
    };
    match advice(failure.class, reference.map(Reference::host), dialect) {
        Some(advice) => format!("{message}; {advice}"),
        None => message,
    }
}

/// The words of container runtimes and of the clouds' pages, where people know the failure by them.
fn searched_for(class: Class) -> Option<&'static str> {
    use Class::{Auth, Certificate, Dns, NoSpace, NotFound, PlainHttp, RateLimited, Timeout};
    let known =
        matches!(class, Auth | Certificate | Dns | NoSpace | NotFound | PlainHttp | RateLimited | Timeout);
    known.then(|| class.phrase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_text_keeps_its_bound_also_as_json() {
        for text in ["short", &"\"".repeat(900), &"é".repeat(900), &"a\nb".repeat(300)] {
            let json = serde_json::to_string(&cut(text, 100)).unwrap();
            assert!(json.len() <= 102, "{}", json.len());
        }
        assert_eq!(cut("short", 100), "short");
        assert_eq!(cut("12345", 5), "12345");
        assert_eq!(cut("123456", 5), "12…");
    }

    #[test]
    fn sizes_read_well() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(3 << 29), "1.5 GiB");
        assert_eq!((images(1), images(2)), ("1 image".into(), "2 images".into()));
    }
}
