//! Progress of a pull as a person sees it: a bar per image and one for all on a terminal, lines elsewhere.

use std::{collections::VecDeque, time::Duration};

use indicatif::{HumanDuration, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::Instant;

use super::table::{Align, columns, human};
use crate::model::{
    digest::Digest,
    reference::Reference,
    report::{Bytes, ImageOutcome, Outcome, Progress},
};

pub(super) struct Bars {
    group: MultiProgress,
    images: Vec<ProgressBar>,
    all: ProgressBar,
}

impl Bars {
    pub(super) fn new(images: &[Reference]) -> Self {
        let group = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        let width = images.iter().map(|image| image.to_string().len()).max().unwrap_or_default().min(60);
        let bar = |name: String| {
            let bar = group.add(ProgressBar::new(0));
            bar.set_style(style(&format!(
                "{{prefix:{width}}} [{{bar:30}}] {{binary_bytes:>11}} / {{binary_total_bytes:<11}} {{binary_bytes_per_sec}}, {{eta}} left {{msg}}"
            )));
            bar.set_prefix(name);
            bar
        };
        let names = images.iter().map(|image| bar(image.to_string())).collect();
        let all = bar("total".to_owned());
        all.set_style(style(&format!(
            "{{prefix:{width}}} [{{bar:30}}] {{binary_bytes:>11}} / {{binary_total_bytes:<11}} {{binary_bytes_per_sec}}, {{eta}} left"
        )));
        Self { group, images: names, all }
    }

    pub(super) fn show(&self, progress: &Progress) {
        for (bar, bytes) in self.images.iter().zip(&progress.images) {
            bar.set_length(bytes.total);
            bar.set_position(bytes.done);
            if bytes.reused > 0 {
                bar.set_message(format!("{} reused", human(bytes.reused)));
            }
        }
        self.all.set_length(progress.all.total);
        self.all.set_position(progress.all.done);
    }

    /// Makes room for the result, which says it all.
    pub(super) fn end(&self) {
        // A terminal that went away is no reason to fail.
        let _ = self.group.clear();
    }
}

/// One bar for one thing that is counted in bytes; nothing where nobody looks.
pub(super) fn of_bytes() -> ProgressBar {
    ProgressBar::new(0).with_style(style(
        "{prefix}[{bar:30}] {binary_bytes:>11} / {binary_total_bytes:<11} {binary_bytes_per_sec}, {eta} left",
    ))
}

pub(super) fn show(bar: &ProgressBar, done: u64, total: u64) {
    bar.set_length(total);
    bar.set_position(done);
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

/// How fast bytes have come lately; what was reused never came.
#[derive(Default)]
pub(super) struct Pace(VecDeque<(Instant, u64)>);

impl Pace {
    /// Bytes a second, as soon as there is something to measure.
    pub(super) fn rate(&mut self, now: Instant, all: Bytes) -> Option<u64> {
        self.0.push_back((now, all.done - all.reused));
        while self.0.len() > 2 && now - self.0[0].0 > LATELY {
            self.0.pop_front();
        }
        let (since, before) = *self.0.front()?;
        let (millis, moved) = ((now - since).as_millis(), (all.done - all.reused).saturating_sub(before));
        let rate = (u128::from(moved) * 1000).checked_div(millis)?;
        u64::try_from(rate).ok().filter(|rate| *rate > 0)
    }
}

const LATELY: Duration = Duration::from_secs(10);

/// One line for a log.
pub(super) fn line(name: &str, progress: &Progress, rate: Option<u64>) -> String {
    let all = progress.all;
    let percent = if all.total == 0 { 0 } else { u128::from(all.done) * 100 / u128::from(all.total) };
    let pace = rate.filter(|_| all.done < all.total).map(|rate| {
        let left = Duration::from_secs((all.total - all.done).div_ceil(rate));
        format!(", {}/s, {} left", human(rate), HumanDuration(left))
    });
    let (total, reused) = (human(all.total), human(all.reused));
    format!("{name}: {percent}% of {total}, {reused} reused{}", pace.unwrap_or_default())
}

/// What a finished pull holds, as a table.
pub(super) fn table(outcome: &Outcome) -> String {
    let header = [
        ("IMAGE", Align::Left),
        ("SIZE", Align::Right),
        ("PULLED", Align::Right),
        ("REUSED", Align::Right),
        ("DIGEST", Align::Left),
    ];
    let row = |image: &ImageOutcome| {
        let short = |d: &Digest| format!("{}:{}", d.algorithm().as_str(), &d.hex()[..12]);
        let digest = image.digest.as_ref().map_or_else(|| "-".to_owned(), short);
        vec![image.reference.to_string(), human(image.size), human(image.pulled), human(image.reused), digest]
    };
    columns(&header, &outcome.images.iter().map(row).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_line_says_how_fast_it_goes_and_how_long_it_takes_and_reuse_is_no_speed() {
        let (mut pace, begun) = (Pace::default(), Instant::now());
        let bytes = |done, reused| Bytes { done, reused, total: 100 << 20 };
        assert_eq!(pace.rate(begun, bytes(0, 0)), None);
        let now = bytes(50 << 20, 30 << 20);
        let rate = pace.rate(begun + Duration::from_secs(2), now);
        assert_eq!(rate, Some(10 << 20));
        let said = line("c", &Progress { all: now, images: vec![] }, rate);
        assert_eq!(said, "c: 50% of 100.0 MiB, 30.0 MiB reused, 10.0 MiB/s, 5 seconds left");
        // What was long ago does not count.
        pace.rate(begun + Duration::from_mins(1), bytes(60 << 20, 30 << 20));
        assert_eq!(pace.rate(begun + Duration::from_secs(61), bytes(62 << 20, 30 << 20)), Some(2 << 20));
    }
}
