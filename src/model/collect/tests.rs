use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::*;
use crate::{
    api::image_cache::{Ledger, LedgerRoot},
    model::{collected::Amount, digest::Digest},
};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + seconds).unwrap()
}

fn job(state: JobState) -> GcJob {
    GcJob {
        uid: "job-2".into(),
        resource_version: "7".into(),
        created: at(0),
        deleting: false,
        state,
        pod: None,
    }
}

/// A run of at(0) that ended a second later.
fn record(report: Report) -> Record {
    let report = Report { listed: true, ..report };
    Record::of(&job(JobState::Succeeded { at: at(1) }), Ok(report), None, at(1))
}

/// When a situation without a Job starts one, in seconds; checked to be the very moment.
fn starts(situation: &Situation) -> Option<i64> {
    let pace = Pace::default();
    let due = due(situation, &pace);
    if due == Timestamp::MAX {
        return None;
    }
    assert_eq!(next(situation, &pace, due), Step::Start);
    assert_eq!(next(situation, &pace, due - Duration::from_secs(1)), Step::Wait);
    Some(due.as_second() - 1_000_000)
}

#[test]
fn what_calls_for_a_collection_and_when() {
    let done = || Some(record(Report { gc: "ab".into(), ..Report::default() }));
    let base = || Situation { leading: at(0), record: done(), ..Situation::default() };
    let later = Some((at(100), at(130)));
    let many = Some((at(100), at(400)));
    let before = Some((at(-99), at(-65)));
    let waits =
        |until| Report { waiting_until: Some(at(until)), freed: one(), at: at(0), ..Report::default() };
    for (what, situation, expected) in [
        ("the schedule", base(), 6 * 3600),
        ("nothing is remembered", Situation { record: None, ..base() }, 600),
        ("the last deletion of a few", Situation { deletions: later, ..base() }, 160),
        ("deletions that do not end", Situation { deletions: many, ..base() }, 400),
        ("a deletion that was answered", Situation { deletions: before, ..base() }, 6 * 3600),
        ("a full volume", Situation { no_space: Some(at(50)), ..base() }, 50),
        ("a volume that was full before", Situation { no_space: Some(at(-50)), ..base() }, 6 * 3600),
        ("blobs in the trash", Situation { record: Some(record(waits(900))), ..base() }, 901),
        ("what is due has a little time", Situation { record: Some(record(waits(-100))), ..base() }, 61),
    ] {
        assert_eq!(starts(&situation), Some(expected), "{what}");
    }
    let never = Pace { interval: None, ..Pace::default() };
    assert_eq!(next(&base(), &never, Timestamp::MAX - Duration::from_secs(1)), Step::Wait, "no schedule");
}

fn one() -> Amount {
    Amount { blobs: 1, bytes: 1 }
}

#[test]
fn a_run_that_changed_nothing_is_not_followed_at_once_and_trouble_comes_later_and_later() {
    let idle = Report { condemned_until: Some(at(5)), at: at(0), ..Report::default() };
    let situation = |record| Situation { record: Some(record), ..Situation::default() };
    assert_eq!(starts(&situation(record(idle))), Some(601));
    let mut last = 0;
    let mut before = None;
    for n in 1..12 {
        let ended = job(JobState::Succeeded { at: at(1) });
        let failed = Record::of(&ended, Err("no pod".into()), before.as_ref(), at(1));
        let due = starts(&situation(failed.clone())).unwrap();
        assert!(due > last || due == 3601, "{n}: {due}");
        (last, before) = (due, Some(failed));
    }
    assert_eq!(last, 3601, "within the hour");
    let refused = Report { refused: vec!["why".into()], waiting_until: Some(at(2)), ..Report::default() };
    assert_eq!(starts(&situation(record(refused))), Some(121));
    let deleted = Situation {
        deletions: Some((at(2), at(2))),
        ..situation(Record { troubles: 5, ..record(Report::default()) })
    };
    assert_eq!(starts(&deleted), Some(1921), "a deletion does not hurry what does not work");
}

#[test]
fn one_job_at_a_time_from_its_start_to_its_removal() {
    let pace = Pace::default();
    let pod = |started: Option<Timestamp>| PodFact {
        name: "p".into(),
        created: at(0),
        started,
        waiting: None,
        unschedulable: Some("0/3 nodes".into()),
        disrupted: None,
        exit: None,
    };
    let ended = || JobState::Succeeded { at: at(9) };
    let remembered = Record { job: "job-2".into(), ..record(Report::default()) };
    let other = Record { job: "job-1".into(), ..remembered.clone() };
    let rows = [
        ("just made", GcJob { ..job(JobState::Active) }, None, 10, Step::Wait),
        (
            "at work for a day",
            GcJob { pod: Some(pod(Some(at(1)))), ..job(JobState::Active) },
            None,
            86400,
            Step::Wait,
        ),
        (
            "no node",
            GcJob { pod: Some(pod(None)), ..job(JobState::Active) },
            None,
            600,
            Step::GiveUp("its pod did not start: 0/3 nodes".into()),
        ),
        ("no pod", job(JobState::Active), None, 600, Step::GiveUp("its pod was not made".into())),
        ("given up", job(JobState::Active), Some(&remembered), 601, Step::Remove),
        ("ended", job(ended()), None, 10, Step::Collect),
        ("ended, another one was read", job(ended()), Some(&other), 10, Step::Collect),
        ("read", job(ended()), Some(&remembered), 10, Step::Wait),
        ("read, and the next is due", job(ended()), Some(&remembered), 6 * 3600, Step::Remove),
        ("on its way out", GcJob { deleting: true, ..job(ended()) }, None, 10, Step::Wait),
    ];
    for (what, job, record, now, step) in rows {
        let situation = Situation { job: Some(job), record: record.cloned(), ..Situation::default() };
        assert_eq!(next(&situation, &pace, at(now)), step, "{what}");
    }
}

#[test]
fn a_failed_run_keeps_what_the_last_report_said_for_the_next_list() {
    let first = record(Report { gc: "ab".into(), store: "s".into(), ..Report::default() });
    assert_eq!((first.last_gc(), first.troubles, first.reported), (Some("ab"), 0, at(0)));
    let ended = GcJob { created: at(50), ..job(JobState::Succeeded { at: at(60) }) };
    let second = Record::of(&ended, Err("it was evicted".into()), Some(&first), at(61));
    assert_eq!((second.last_gc(), second.troubles, second.reported), (Some("ab"), 1, at(0)));
    assert_eq!(second.started, at(50));
}

fn status(run: i64, store: &str, credited: i64) -> ImageCacheStatus {
    let digest = Digest::sha256(&run.to_le_bytes()).to_string();
    let root = LedgerRoot {
        run,
        digest,
        at: Time(at(credited)),
        inputs: String::new(),
        resolved: None,
        proved: None,
        taken_back: None,
        mirror_store_id: None,
    };
    let ledger = Ledger { run, root: Some(root), store_id: Some(store.into()), ..Ledger::default() };
    ImageCacheStatus { ledger: Some(ledger), ..ImageCacheStatus::default() }
}

#[test]
fn the_list_names_every_cache_the_store_of_the_newest_credit_and_the_last_run_that_was_read() {
    let (old, new, fresh) = (status(3, "old", 10), status(2, "new", 20), ImageCacheStatus::default());
    let expired = ImageCacheStatus {
        phase: Some("Expired".into()),
        ledger: Some(Ledger { run: 4, answered: true, ..Ledger::default() }),
        ..ImageCacheStatus::default()
    };
    let revived = ImageCacheStatus {
        ledger: expired.ledger.clone().map(|ledger| Ledger { open: true, ..ledger }),
        ..expired.clone()
    };
    let mut bent = status(5, "old", 1);
    bent.ledger.as_mut().unwrap().root.as_mut().unwrap().digest = "sha256:no".into();
    let objects = [
        ("a", Some(&old)),
        ("b", Some(&new)),
        ("c", Some(&fresh)),
        ("d", None),
        ("e", Some(&expired)),
        ("f", Some(&revived)),
        ("g", Some(&bent)),
    ];
    let key = |name: &str| name.parse::<CacheKey>().unwrap();
    let objects = || objects.into_iter().map(|(name, status)| (key(name), status));
    let read = record(Report { gc: "ab".into(), store: "other".into(), ..Report::default() });
    let list = live_list(objects(), Some(&read), None).unwrap();
    assert_eq!((list.store.as_str(), list.last_gc.as_deref()), ("new", Some("ab")));
    let names: Vec<&str> = list.caches.keys().map(CacheKey::as_str).collect();
    assert_eq!(names, ["a", "b", "c", "d", "f", "g"], "one that is kept without content lives no more");
    assert_eq!(list.caches[&key("a")].as_ref().unwrap().run, 3);
    for name in ["c", "d", "f", "g"] {
        assert_eq!(list.caches[&key(name)], None);
    }
}

#[test]
fn without_any_credit_the_store_is_the_one_that_gc_or_the_mirror_saw_and_else_there_is_no_list() {
    let none = || std::iter::empty::<(CacheKey, Option<&ImageCacheStatus>)>();
    let read = record(Report { gc: "ab".into(), store: "seen".into(), ..Report::default() });
    let empty = record(Report::default());
    let mirror = || Some("mirrored".to_owned());
    assert_eq!(live_list(none(), Some(&read), mirror()).unwrap().store, "seen");
    assert_eq!(live_list(none(), None, mirror()).unwrap().store, "mirrored");
    assert_eq!(live_list(none(), Some(&empty), None), None);
    assert_eq!(live_list(none(), None, None), None);
    assert_eq!(live_list(none(), None, mirror()).unwrap().last_gc, None);
}
