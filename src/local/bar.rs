//! Progress of a pull as a person sees it: a bar per image and one for all on a terminal, lines elsewhere.

use std::time::Duration;

use indicatif::{HumanDuration, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::table::{Align, columns, human};
use crate::model::{
    digest::Digest,
    reference::Reference,
    report::{ImageOutcome, Outcome, Progress, Speed},
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

/// One line for a log.
pub(super) fn line(name: &str, progress: &Progress, speed: Speed) -> String {
    let all = progress.all;
    let percent = if all.total == 0 { 0 } else { u128::from(all.done) * 100 / u128::from(all.total) };
    let pace = speed.rate.zip(speed.seconds_left).filter(|_| all.done < all.total).map(|(rate, left)| {
        format!(", {}/s, {} left", human(rate), HumanDuration(Duration::from_secs(left)))
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
    use crate::model::report::Bytes;

    #[test]
    fn a_line_says_how_fast_it_goes_and_how_long_it_takes() {
        let all = Bytes { done: 50 << 20, reused: 30 << 20, total: 100 << 20 };
        let speed = Speed { rate: Some(10 << 20), seconds_left: Some(5) };
        let said = line("c", &Progress { all, images: vec![] }, speed);
        assert_eq!(said, "c: 50% of 100.0 MiB, 30.0 MiB reused, 10.0 MiB/s, 5 seconds left");
        let said = line("c", &Progress { all, images: vec![] }, Speed::default());
        assert_eq!(said, "c: 50% of 100.0 MiB, 30.0 MiB reused");
    }
}
