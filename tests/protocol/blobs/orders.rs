//! What holds in every order, and what breaks when a rule is dropped.

use super::*;

#[test]
fn two_pulls_and_a_collector_in_every_order_lose_nothing() {
    holds("two pulls, one gc, an older trash", &Blobs { pulls: 2, old_trash: true, ..PLAIN });
    holds("two pulls, one gc, nothing there", &Blobs { pulls: 2, there: false, ..PLAIN });
}

#[test]
fn a_pull_and_two_collectors_in_every_order_lose_nothing() {
    holds("one pull, two gcs", &Blobs { gcs: 2, ..PLAIN });
    holds(
        "one pull, two gcs, an older trash, views that are old",
        &Blobs { gcs: 2, old_trash: true, stale: true, ..PLAIN },
    );
}

#[test]
fn a_reader_and_removal_by_hand_in_every_order_lose_nothing() {
    holds("one pull, one gc, mirror, rm", &Blobs { rm: true, reader: true, old_trash: true, ..PLAIN });
    holds("one pull, two gcs, mirror", &Blobs { gcs: 2, reader: true, freezes: false, ..PLAIN });
    holds("two pulls, one gc, rm", &Blobs { pulls: 2, rm: true, ..PLAIN });
}

#[test]
fn views_that_are_old_lose_nothing() {
    holds("two pulls, one gc, views that are old", &Blobs { pulls: 2, stale: true, ..PLAIN });
}

#[test]
fn a_power_cut_loses_nothing_that_was_reported() {
    holds("two pulls, power cut", &Blobs { pulls: 2, gcs: 0, there: false, power_cut: true, ..PLAIN });
    holds("one pull, two gcs, power cut", &Blobs { gcs: 2, power_cut: true, ..PLAIN });
}

const TWO: Blobs = Blobs { gcs: 2, ..PLAIN };
const OLD_VIEWS: Blobs = Blobs { stale: true, ..TWO };

#[test]
fn the_trash_is_listed_before_the_leases_are_read() {
    breaks("trash listed last", &Blobs { rules: Rules { list_first: false, ..ALL }, ..OLD_VIEWS });
}

#[test]
fn nothing_is_unlinked_in_the_run_that_moved_it() {
    breaks("unlinked in the same run", &Blobs { rules: Rules { unlink_later: false, ..ALL }, ..OLD_VIEWS });
}

#[test]
fn nothing_is_unlinked_before_old_views_have_gone() {
    breaks("unlinked at any age", &Blobs { rules: Rules { unlink_aged: false, ..ALL }, ..OLD_VIEWS });
}

#[test]
fn nothing_is_unlinked_that_is_named() {
    breaks("unlinked although it is named", &Blobs { rules: Rules { spare_named: false, ..ALL }, ..TWO });
}

#[test]
fn there_is_a_last_look_after_the_root() {
    breaks("no last look", &Blobs { rules: Rules { last_look: false, ..ALL }, ..TWO });
}

#[test]
fn the_folders_are_made_durable_at_the_very_end_whoever_wrote_what_was_found() {
    let rules = Rules { last_sync: false, ..ALL };
    breaks("no sync at the end", &Blobs { rules, power_cut: true, ..TWO });
}

#[test]
fn one_look_is_not_enough_for_a_reader() {
    let rules = Rules { reader_looks: 1, ..ALL };
    breaks("one look", &Blobs { rules, reader: true, freezes: false, ..TWO });
}
