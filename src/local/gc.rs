//! `imagecache gc`: what was freed, what is kept and why, what goes later and when.

use std::{fs, path::Path, time::Duration};

use super::table::{Align, columns, human};
use crate::{
    cli::{GcArgs, Output},
    gc::{self, GcError, Settings},
    model::{
        class::{Class, EXIT_USAGE},
        collected::{Amount, Broken, CacheBytes, Report, RootReport},
        live::{LiveList, LivePart},
        text::count,
    },
    ops::out::{print, tell},
    store::{Space, Store, StoreError},
};

/// Runs the command and returns the exit status.
pub fn run(args: &GcArgs) -> u8 {
    let live = match read_list(args) {
        Ok(live) => live,
        Err(reason) => {
            tell(&reason);
            return EXIT_USAGE;
        }
    };
    match collect(args, live.as_ref()) {
        Ok(Some(report)) => {
            print(&if args.output == Output::Json { to_json(&report) } else { to_text(&report) });
            report.refused.iter().for_each(|reason| tell(reason));
            if let Some(file) = &args.termination_log {
                // What a list was refused for is in the report: the Job did what it was made for.
                return leave(report, file);
            }
            if report.refused.is_empty() { 0 } else { Class::Unknown.exit_code() }
        }
        Ok(None) => {
            tell(&format!("another gc is at work on {}: it does the same", args.volume.display()));
            // It has no list of the cluster.
            if args.termination_log.is_some() { Class::Unknown.exit_code() } else { 0 }
        }
        Err(error) => {
            tell(&error.to_string());
            match error {
                GcError::Store(error) => error.class().exit_code(),
                GcError::OtherStore { .. } => Class::Unknown.exit_code(),
            }
        }
    }
}

/// Whole in the log, and in brief where Kubernetes keeps it with the pod.
fn leave(report: Report, file: &Path) -> u8 {
    let (lines, termination) = report.bounded().encode();
    for line in &lines {
        print(line);
    }
    match fs::write(file, termination) {
        Ok(()) => 0,
        Err(error) => {
            tell(&format!("{}: {error}", file.display()));
            Class::Unknown.exit_code()
        }
    }
}

/// Nothing, if somebody else is at it.
fn collect(args: &GcArgs, live: Option<&LiveList>) -> Result<Option<Report>, GcError> {
    let store = match Store::open(&args.volume) {
        Ok(store) => store,
        // Nothing was pulled yet, or the volume is another one: the controller has to know which.
        Err(StoreError::Absent(_)) if args.termination_log.is_some() => {
            return Ok(Some(not_here(live, String::new(), Space::of(&args.volume)?)));
        }
        Err(error) => return Err(error.into()),
    };
    let lock = if args.dry_run { None } else { store.try_lock_gc()? };
    if lock.is_none() && !args.dry_run {
        return Ok(None);
    }
    let minutes = |minutes: u32| Duration::from_secs(u64::from(minutes) * 60);
    let mut settings = Settings { grace: minutes(args.grace), ..Settings::default() };
    if args.unsafe_no_waiting {
        settings = Settings { trash: Duration::ZERO, condemned: Duration::ZERO, ..settings };
    }
    match gc::collect(&store, live, &settings, args.dry_run) {
        Err(GcError::OtherStore { ours, .. }) if args.termination_log.is_some() => {
            Ok(Some(not_here(live, ours, store.space()?)))
        }
        done => done.map(Some),
    }
}

/// The store that the list is for is not on this volume: nothing of what the cluster counts on is here.
fn not_here(live: Option<&LiveList>, ours: String, space: Space) -> Report {
    let credited = live.iter().flat_map(|list| &list.caches);
    let broken: Vec<Broken> = credited
        .filter_map(|(cache, credited)| {
            let reason = "is in another store".to_owned();
            Some(Broken { cache: cache.clone(), run: credited.as_ref()?.run, reason })
        })
        .collect();
    let mut refused = Vec::new();
    if let Some(list) = live.filter(|list| !list.store.is_empty()) {
        let here = if ours.is_empty() { "none".to_owned() } else { format!("store {ours}") };
        refused.push(format!(
            "the list of living caches is for store {}, but on this volume is {here}: nothing was touched",
            list.store
        ));
    }
    Report {
        store: ours,
        listed: live.is_some(),
        at: crate::ops::clock::now(),
        capacity: space.capacity,
        free: space.free,
        refused,
        broken,
        ..Report::default()
    }
}

fn read_list(args: &GcArgs) -> Result<Option<LiveList>, String> {
    let part = |path: &Path| -> Result<LivePart, String> {
        let bytes = fs::read(path).map_err(|e| e.to_string())?;
        serde_json::from_slice(&bytes).map_err(|e| e.to_string())
    };
    let mut parts = Vec::new();
    for path in &args.live {
        parts.push(part(path).map_err(|e| format!("{}: {e}", path.display()))?);
    }
    if parts.is_empty() {
        return Ok(None);
    }
    LiveList::assemble(&parts).map(Some).map_err(|e| format!("--live: {e}"))
}

fn to_json(report: &Report) -> String {
    serde_json::to_string_pretty(report).unwrap_or_default()
}

fn to_text(report: &Report) -> String {
    let mut parts = Vec::new();
    if !report.roots.is_empty() {
        parts.extend([roots(report), "\n".into()]);
    }
    if !report.caches.is_empty() {
        parts.extend([caches(report), "\n".into()]);
    }
    parts.extend([amounts(report), "\n".into()]);
    let verb = if report.dry_run { "would be freed" } else { "freed" };
    let bytes = report.freed.bytes + report.unfinished.bytes;
    parts.push(format!(
        "{} {verb}, {} kept for {}; {} free of {}; store {}\n",
        human(bytes),
        human(report.rooted.bytes + report.leased.bytes),
        count(report.live_roots, "living root"),
        human(report.free),
        human(report.capacity),
        report.store
    ));
    if !report.refused.is_empty() {
        parts.push("no blob was swept: see the reasons below\n".into());
    }
    parts.concat()
}

fn caches(report: &Report) -> String {
    let header = [
        ("NAME", Align::Left),
        ("CACHE", Align::Left),
        ("SIZE", Align::Right),
        ("SHARED", Align::Right),
        ("FREED IF DELETED", Align::Right),
    ];
    let row = |cache: &CacheBytes| {
        let [size, shared, freed] = [cache.size, cache.shared, cache.freed_if_deleted].map(human);
        vec![cache.name.clone(), cache.cache.to_string(), size, shared, freed]
    };
    columns(&header, &report.caches.iter().map(row).collect::<Vec<_>>())
}

fn roots(report: &Report) -> String {
    let header =
        [("CACHE", Align::Left), ("RUN", Align::Right), ("STATE", Align::Left), ("REASON", Align::Left)];
    let row = |root: &RootReport| {
        let state = match (root.removed, &root.until) {
            (true, _) => "removed".to_owned(),
            (false, Some(until)) => format!("condemned until {until}"),
            (false, None) => "condemned".to_owned(),
        };
        vec![root.cache.to_string(), root.run.to_string(), state, root.why.clone()]
    };
    columns(&header, &report.roots.iter().map(row).collect::<Vec<_>>())
}

fn amounts(report: &Report) -> String {
    let until = |what: &str, time: &Option<jiff::Timestamp>| {
        time.map_or_else(|| what.to_owned(), |time| format!("{what} from {time} on"))
    };
    let unfinished = Amount { blobs: report.unfinished.files, bytes: report.unfinished.bytes };
    let rows = [
        ("freed", report.freed, "unlinked".to_owned()),
        ("unfinished", unfinished, "downloads that nobody continues, removed".to_owned()),
        ("taken out", report.taken_out, "no cache needs them; still found by readers".to_owned()),
        ("put back", report.put_back, "needed again".to_owned()),
        ("in the trash", report.waiting, until("a later run frees them,", &report.waiting_until)),
        ("kept", report.rooted, "caches need them".to_owned()),
        ("kept", report.leased, "running or failed pulls named them".to_owned()),
        ("kept", report.young, until("came lately; candidates", &report.young_until)),
    ];
    let header =
        [("WHAT", Align::Left), ("FILES", Align::Right), ("SIZE", Align::Right), ("WHY", Align::Left)];
    let row = |(what, amount, why): &(&str, Amount, String)| {
        vec![(*what).to_owned(), amount.blobs.to_string(), human(amount.bytes), why.clone()]
    };
    let shown: Vec<Vec<String>> = rows.iter().filter(|(_, amount, _)| amount.blobs > 0).map(row).collect();
    if shown.is_empty() { "the volume holds no blobs\n".to_owned() } else { columns(&header, &shown) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::collected::Remains;

    #[test]
    fn the_report_says_what_went_what_stays_and_why() {
        let amount = |blobs, bytes| Amount { blobs, bytes };
        let report = Report {
            gc: "ab".into(),
            store: "0123".into(),
            freed: amount(2, 2048),
            unfinished: Remains { files: 1, bytes: 1024 },
            taken_out: amount(1, 10),
            waiting: amount(1, 10),
            waiting_until: Some("2026-01-02T03:19:05Z".parse().unwrap()),
            rooted: amount(5, 5 << 20),
            live_roots: 1,
            capacity: 10 << 30,
            free: 4 << 30,
            caches: vec![CacheBytes {
                cache: "9a25".parse().unwrap(),
                name: "shop".into(),
                size: 5 << 20,
                shared: 1 << 20,
                freed_if_deleted: 4 << 20,
            }],
            roots: vec![RootReport {
                cache: "8f14e45f".parse().unwrap(),
                run: 3,
                why: "its ImageCache is gone".into(),
                removed: false,
                until: Some("2026-01-02T03:14:05Z".parse().unwrap()),
            }],
            ..Report::default()
        };
        assert_eq!(
            to_text(&report),
            "\
CACHE     RUN  STATE                                 REASON
8f14e45f    3  condemned until 2026-01-02T03:14:05Z  its ImageCache is gone

NAME  CACHE     SIZE   SHARED  FREED IF DELETED
shop  9a25   5.0 MiB  1.0 MiB           4.0 MiB

WHAT          FILES     SIZE  WHY
freed             2  2.0 KiB  unlinked
unfinished        1  1.0 KiB  downloads that nobody continues, removed
taken out         1     10 B  no cache needs them; still found by readers
in the trash      1     10 B  a later run frees them, from 2026-01-02T03:19:05Z on
kept              5  5.0 MiB  caches need them

3.0 KiB freed, 5.0 MiB kept for 1 living root; 4.0 GiB free of 10.0 GiB; store 0123
"
        );
        let json: serde_json::Value = serde_json::from_str(&to_json(&report)).unwrap();
        assert_eq!((&json["freed"]["bytes"], &json["roots"][0]["removed"]), (&2048.into(), &false.into()));
    }
}
