//! How fast bytes have come lately, and how long the rest takes: of each image, and of all. What was reused never
//! came, so it is no speed.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use crate::model::report::{Bytes, Pace, Progress, Speed};

/// What was longer ago does not count.
const LATELY: Duration = Duration::from_secs(10);

/// What was seen, the oldest first.
#[derive(Debug, Default)]
struct Window(VecDeque<(Instant, u64)>);

impl Window {
    fn speed(&mut self, now: Instant, bytes: Bytes) -> Speed {
        let came = bytes.done.saturating_sub(bytes.reused);
        self.0.push_back((now, came));
        while self.0.len() > 2 && now - self.0[0].0 > LATELY {
            self.0.pop_front();
        }
        let (since, before) = self.0.front().copied().unwrap_or((now, came));
        let millis = (now - since).as_millis();
        let rate = (u128::from(came.saturating_sub(before)) * 1000).checked_div(millis);
        let rate = rate.and_then(|rate| u64::try_from(rate).ok());
        let left = bytes.total.saturating_sub(bytes.done);
        let seconds_left = match rate {
            _ if left == 0 && bytes.total > 0 => Some(0),
            Some(rate) if rate > 0 => Some(left.div_ceil(rate)),
            _ => None,
        };
        Speed { rate, seconds_left }
    }
}

/// The windows of one run. Ask it as often as progress is shown.
#[derive(Debug, Default)]
pub struct Watch {
    all: Window,
    images: Vec<Window>,
}

impl Watch {
    pub fn pace(&mut self, now: Instant, progress: &Progress) -> Pace {
        self.images.resize_with(progress.images.len(), Window::default);
        let images = self.images.iter_mut().zip(&progress.images);
        Pace {
            all: self.all.speed(now, progress.all),
            images: images.map(|(window, bytes)| window.speed(now, *bytes)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(done: u64, reused: u64) -> Progress {
        let bytes = |done, reused| Bytes { done, reused, total: 100 };
        Progress { all: bytes(done, reused), images: vec![bytes(done, reused), Bytes::default()] }
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_came_lately_is_speed_and_what_is_left_takes_its_time() {
        let (mut watch, begun) = (Watch::default(), Instant::now());
        let mut at = |second: u64, done, reused| {
            watch.pace(begun + Duration::from_secs(second), &progress(done, reused))
        };
        assert_eq!(at(0, 30, 30).all, Speed::default(), "nothing to measure yet");
        let pace = at(2, 50, 30);
        assert_eq!(pace.all, Speed { rate: Some(10), seconds_left: Some(5) });
        assert_eq!(pace.images, [pace.all, Speed { rate: Some(0), seconds_left: None }]);
        assert_eq!(at(60, 60, 30).all.rate, Some(0), "10 bytes in a minute");
        assert_eq!(at(61, 62, 30).all, Speed { rate: Some(2), seconds_left: Some(19) });
        assert_eq!(at(62, 100, 30).all.seconds_left, Some(0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_blob_that_another_pull_brought_after_all_makes_no_speed_go_below_zero() {
        let (mut watch, begun) = (Watch::default(), Instant::now());
        watch.pace(begun, &progress(60, 0));
        assert_eq!(watch.pace(begun + LATELY, &progress(100, 100)).all.rate, Some(0));
    }
}
