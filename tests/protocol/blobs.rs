//! One blob, wanted by pulls of different caches, and what may happen to it.
//!
//! Every age but one has passed: a collector may take the blob at once, and any lease may be stale, since a pull may be
//! frozen for a day. The one that is modelled is the quarter of an hour that a blob stays in the trash, because it
//! is what old views of a network file system are measured against.

mod orders;

use super::search::{Model, Step, breaks, holds};

const PULLS: [&str; 2] = ["pull 1", "pull 2"];
const GCS: [&str; 2] = ["gc 1", "gc 2"];
const READER: &str = "mirror";
/// The trash folder of a collector that is long dead; before it those of the living ones.
const OLD: usize = 2;
const FOLDERS: usize = 3;
/// As in `src/store/look.rs`.
const LOOKS: u8 = 5;

#[derive(Clone, Copy)]
struct Rules {
    /// gc 1: what is unlinked was listed before the leases were read.
    list_first: bool,
    /// gc 7: what this run moved waits for another run.
    unlink_later: bool,
    /// gc 7: it waits for a quarter of an hour.
    unlink_aged: bool,
    /// gc 6 and 7: what is named by what was read since the listing is put back, not unlinked.
    spare_named: bool,
    /// Pull 6.
    last_look: bool,
    /// Pull 6: the blob folders are made durable again, whoever wrote what was found.
    last_sync: bool,
    /// Looking: how often a reader looks before a blob is missing.
    reader_looks: u8,
}

const ALL: Rules = Rules {
    list_first: true,
    unlink_later: true,
    unlink_aged: true,
    spare_named: true,
    last_look: true,
    last_sync: true,
    reader_looks: LOOKS,
};

#[derive(Clone, Copy)]
struct Blobs {
    rules: Rules,
    pulls: usize,
    gcs: usize,
    reader: bool,
    /// A cache that holds the blob from the beginning and is removed by hand at some time.
    rm: bool,
    /// Where the blob may be at the beginning: in its folder, in the old trash.
    there: bool,
    old_trash: bool,
    /// Leases may vanish, because their owners were frozen for a day.
    freezes: bool,
    /// A network file system: what was true a quarter of an hour ago may be what is seen.
    stale: bool,
    power_cut: bool,
}

const PLAIN: Blobs = Blobs {
    rules: ALL,
    pulls: 1,
    gcs: 1,
    reader: false,
    rm: false,
    there: true,
    old_trash: false,
    freezes: true,
    stale: false,
    power_cut: false,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum PullAt {
    Start,
    /// Which look, and which place is next.
    Look(When, u8),
    /// Linked back; the name in this trash folder goes next.
    Linked(When, usize),
    Fetch(When),
    Link,
    Sync,
    Release,
    Done,
    Dead,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum When {
    First,
    Last,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum GcAt {
    ListTrash,
    Leases,
    Roots,
    Candidates,
    Move,
    LeasesAgain,
    RootsAgain,
    ListLate,
    PutBack(u8),
    /// Linked back; the name in this trash folder goes next.
    Linked(u8),
    Unlink(u8),
    Over,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Gc {
    at: GcAt,
    listed: [bool; FOLDERS],
    named: bool,
    named_again: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum ReaderAt {
    Idle,
    /// So many looks are done, and this place is next.
    Look(u8, u8),
    Missed,
    Over,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    /// The blob under its name, and in the trash.
    there: bool,
    trash: [bool; FOLDERS],
    /// Both as they were made durable: what a power cut may go back to.
    durable: (bool, [bool; FOLDERS]),
    /// It has been in that folder for a quarter of an hour.
    aged: [bool; FOLDERS],
    /// It was there less than a quarter of an hour ago: an old view shows it still.
    was_there: bool,
    pulls: [PullAt; 2],
    leases: [bool; 2],
    roots: [bool; 2],
    /// Linked less than a quarter of an hour ago: an old view does not show it yet.
    new_roots: [bool; 2],
    gcs: [Gc; 2],
    reader: ReaderAt,
    /// The root of the cache that is removed by hand.
    old_root: bool,
    cut: bool,
}

impl State {
    fn exists(&self) -> bool {
        self.there || self.trash.contains(&true)
    }

    fn leave(&mut self) {
        self.there = false;
        self.was_there = true;
    }

    fn enter(&mut self) {
        self.there = true;
        self.was_there = false;
    }

    fn go_to_trash(&mut self, folder: usize) {
        if self.there {
            self.trash[folder] = true;
            self.aged[folder] = false;
            self.leave();
        }
    }

    fn out_of_trash(&mut self, folder: usize) {
        self.trash[folder] = false;
        self.aged[folder] = false;
    }
}

/// The places in the order of `look_with`: the folder, the trash, and at the very end the folder again.
fn place(number: u8) -> Option<usize> {
    usize::from(number).checked_sub(1).filter(|folder| *folder < FOLDERS)
}
const LAST_PLACE: u8 = 4;

impl Blobs {
    fn pull(&self, s: &State, i: usize, to: &mut dyn FnMut(Step, State)) {
        let mut go = |what, change: &dyn Fn(&mut State)| {
            let mut next = s.clone();
            change(&mut next);
            to(Step(PULLS[i], what), next);
        };
        let found = |when| match when {
            When::First => PullAt::Link,
            When::Last if self.rules.last_sync => PullAt::Sync,
            When::Last => PullAt::Release,
        };
        match s.pulls[i] {
            PullAt::Start => go("lease", &|n| {
                n.leases[i] = true;
                n.pulls[i] = PullAt::Look(When::First, 0);
            }),
            PullAt::Look(when, number) => {
                let next = |n: &mut State| {
                    let number = self.next_place(number);
                    n.pulls[i] =
                        if number > LAST_PLACE { PullAt::Fetch(when) } else { PullAt::Look(when, number) };
                };
                if let Some(folder) = place(number) {
                    if s.trash[folder] {
                        go("look: in the trash, linked back", &|n| {
                            n.enter();
                            n.pulls[i] = PullAt::Linked(when, folder);
                        });
                    } else {
                        go("look: not in the trash", &next);
                    }
                } else {
                    if s.there {
                        go("look: present", &|n| n.pulls[i] = found(when));
                    } else {
                        go("look: not there", &next);
                    }
                    if !s.there && self.stale && s.was_there {
                        go("look: present in an old view", &|n| n.pulls[i] = found(when));
                    }
                }
            }
            PullAt::Linked(when, folder) => go("sync the blobs, the name in the trash goes", &|n| {
                n.durable = (n.there, n.trash);
                n.out_of_trash(folder);
                n.pulls[i] = found(when);
            }),
            PullAt::Fetch(when) => go("fetch, publish", &|n| {
                n.enter();
                n.pulls[i] = if when == When::First { PullAt::Link } else { PullAt::Look(When::Last, 0) };
            }),
            PullAt::Link => go("sync_blobs, link_root", &|n| {
                n.durable = (n.there, n.trash);
                n.roots[i] = true;
                n.new_roots[i] = true;
                n.pulls[i] = if self.rules.last_look { PullAt::Look(When::Last, 0) } else { PullAt::Release };
            }),
            PullAt::Sync => go("sync_blobs", &|n| {
                n.durable = (n.there, n.trash);
                n.pulls[i] = PullAt::Release;
            }),
            PullAt::Release => go("release the lease, report success", &|n| {
                n.leases[i] = false;
                n.pulls[i] = PullAt::Done;
            }),
            PullAt::Done | PullAt::Dead => return,
        }
        go("killed", &|n| n.pulls[i] = PullAt::Dead);
        if self.freezes && s.leases[i] {
            go("frozen for a day, its lease is stale", &|n| n.leases[i] = false);
        }
    }

    /// Folders that nobody has are not looked at.
    fn next_place(&self, number: u8) -> u8 {
        let exists = |number: u8| place(number).is_none_or(|f| f < self.gcs || (f == OLD && self.old_trash));
        (number + 1..=LAST_PLACE + 1).find(|n| exists(*n)).unwrap_or(LAST_PLACE + 1)
    }

    fn gc(&self, s: &State, j: usize, to: &mut dyn FnMut(Step, State)) {
        let gc = s.gcs[j];
        let mut go = |what, change: &dyn Fn(&mut Gc, &mut State)| {
            let (mut next, mut gc) = (s.clone(), gc);
            change(&mut gc, &mut next);
            if gc.at == GcAt::Over {
                gc = Gc { at: GcAt::Over, ..NEW };
            }
            next.gcs[j] = gc;
            to(Step(GCS[j], what), next);
        };
        let list = |gc: &mut Gc, state: &State| {
            for folder in 0..FOLDERS {
                gc.listed[folder] = state.trash[folder] && (state.aged[folder] || !self.rules.unlink_aged);
            }
        };
        let rooted = s.old_root || s.roots.contains(&true);
        let seen = s.old_root || (0..2).any(|i| s.roots[i] && !s.new_roots[i]);
        match gc.at {
            GcAt::ListTrash => go("list_trash", &|gc, n| {
                if self.rules.list_first {
                    list(gc, n);
                }
                gc.at = GcAt::Leases;
            }),
            GcAt::Leases => go("mark: the leases", &|gc, n| {
                gc.named = n.leases.contains(&true);
                gc.at = GcAt::Roots;
            }),
            GcAt::Roots => {
                go("mark: the roots", &|gc, _| {
                    gc.named |= rooted;
                    gc.at = GcAt::Candidates;
                });
                if self.stale && seen != rooted {
                    go("mark: the roots in an old view", &|gc, _| gc.at = GcAt::Candidates);
                }
            }
            GcAt::Candidates => go("candidates", &|gc, n| {
                gc.at = if n.there && !gc.named { GcAt::Move } else { GcAt::LeasesAgain };
            }),
            GcAt::Move => go("move_to_trash", &|gc, n| {
                n.go_to_trash(j);
                gc.at = GcAt::LeasesAgain;
            }),
            GcAt::LeasesAgain => go("mark again: the leases", &|gc, n| {
                gc.named_again = n.leases.contains(&true);
                gc.at = GcAt::RootsAgain;
            }),
            GcAt::RootsAgain => {
                let next = if self.rules.list_first && self.rules.unlink_later {
                    GcAt::PutBack(0)
                } else {
                    GcAt::ListLate
                };
                go("mark again: the roots", &|gc, _| {
                    gc.named_again |= rooted;
                    gc.at = next;
                });
                if self.stale && seen != rooted {
                    go("mark again: the roots in an old view", &|gc, _| gc.at = next);
                }
            }
            GcAt::ListLate => go("list the trash now", &|gc, n| {
                let own = gc.listed[j];
                if !self.rules.list_first {
                    list(gc, n);
                    gc.listed[j] = own;
                }
                if !self.rules.unlink_later {
                    gc.listed[j] |= n.trash[j];
                }
                gc.at = GcAt::PutBack(0);
            }),
            GcAt::PutBack(f) => go("put_back", &|gc, n| {
                let folder = usize::from(f);
                let spared = self.rules.spare_named || !gc.listed[folder];
                if gc.named_again && spared && n.trash[folder] {
                    n.enter();
                    gc.at = GcAt::Linked(f);
                } else {
                    gc.at = next_put_back(f);
                }
            }),
            GcAt::Linked(f) => go("sync the blobs, the name in the trash goes", &|gc, n| {
                n.durable = (n.there, n.trash);
                n.out_of_trash(usize::from(f));
                gc.at = next_put_back(f);
            }),
            GcAt::Unlink(f) => go("unlink", &|gc, n| {
                let folder = usize::from(f);
                let named = gc.named_again && self.rules.spare_named;
                if gc.listed[folder] && !named {
                    n.out_of_trash(folder);
                }
                gc.at = if folder + 1 < FOLDERS { GcAt::Unlink(f + 1) } else { GcAt::Over };
            }),
            GcAt::Over => return,
        }
        go("killed", &|gc, _| gc.at = GcAt::Over);
    }

    /// `find` for a root that was reported: nothing is moved.
    fn read(&self, s: &State, to: &mut dyn FnMut(Step, State)) {
        let mut go = |what, at| {
            let next = State { reader: at, ..s.clone() };
            to(Step(READER, what), next);
        };
        let reported = (0..2).any(|i| s.pulls[i] == PullAt::Done && s.roots[i]) || s.old_root;
        match s.reader {
            ReaderAt::Idle if reported => go("reads a root that was reported", ReaderAt::Look(0, 0)),
            ReaderAt::Idle | ReaderAt::Missed | ReaderAt::Over => {}
            // Removed by hand meanwhile: it may be missing.
            ReaderAt::Look(..) if !reported => go("the root is gone", ReaderAt::Over),
            ReaderAt::Look(looks, number) => {
                if place(number).map_or(s.there, |folder| s.trash[folder]) {
                    go("find: present, opened", ReaderAt::Over);
                } else {
                    let looks_over = looks == self.rules.reader_looks;
                    let number = self.next_place(number);
                    let next = match () {
                        () if looks_over => ReaderAt::Missed,
                        () if number < LAST_PLACE => ReaderAt::Look(looks, number),
                        () => ReaderAt::Look(looks + 1, 0),
                    };
                    go("find: not here", next);
                }
            }
        }
    }
}

fn next_put_back(f: u8) -> GcAt {
    if usize::from(f) + 1 < FOLDERS { GcAt::PutBack(f + 1) } else { GcAt::Unlink(0) }
}

const NEW: Gc = Gc { at: GcAt::ListTrash, listed: [false; FOLDERS], named: false, named_again: false };

impl Model for Blobs {
    type State = State;

    fn start(&self) -> Vec<State> {
        let over = |n: usize, i: usize| if i < n { NEW.at } else { GcAt::Over };
        let pull = |i: usize| if i < self.pulls { PullAt::Start } else { PullAt::Dead };
        let state = State {
            there: self.there,
            trash: [false; FOLDERS],
            durable: (self.there, [false; FOLDERS]),
            aged: [false; FOLDERS],
            was_there: false,
            pulls: [pull(0), pull(1)],
            leases: [false; 2],
            roots: [false; 2],
            new_roots: [false; 2],
            gcs: [Gc { at: over(self.gcs, 0), ..NEW }, Gc { at: over(self.gcs, 1), ..NEW }],
            reader: if self.reader { ReaderAt::Idle } else { ReaderAt::Over },
            old_root: self.rm,
            cut: false,
        };
        let mut all = vec![state.clone()];
        if self.old_trash {
            let mut state = State { there: false, ..state };
            state.trash[OLD] = true;
            state.durable = (false, state.trash);
            state.aged[OLD] = true;
            all.push(state);
        }
        all
    }

    fn steps(&self, s: &State, to: &mut dyn FnMut(Step, State)) {
        for i in 0..self.pulls {
            self.pull(s, i, to);
        }
        for j in 0..self.gcs {
            self.gc(s, j, to);
        }
        self.read(s, to);
        if s.old_root {
            to(Step("rm", "remove_cache"), State { old_root: false, ..s.clone() });
        }
        if s.was_there || s.new_roots.contains(&true) || s.trash != s.aged {
            let later = State { was_there: false, new_roots: [false; 2], aged: s.trash, ..s.clone() };
            to(Step("a quarter of an hour", "passes"), later);
        }
        if self.power_cut && !s.cut {
            let pull = |at| if matches!(at, PullAt::Done | PullAt::Start) { at } else { PullAt::Dead };
            let gc = |gc: Gc| if gc.at == GcAt::ListTrash { gc } else { Gc { at: GcAt::Over, ..NEW } };
            let cut = State { cut: true, pulls: s.pulls.map(pull), gcs: s.gcs.map(gc), ..s.clone() };
            let (there, trash) = s.durable;
            let lost = State { there, trash, aged: s.aged.map(|_| false), was_there: false, ..cut.clone() };
            to(Step("power", "cut: what was not made durable is lost"), lost);
            to(Step("power", "cut: everything was durable by chance"), cut);
        }
    }

    fn wrong(&self, s: &State) -> Option<&'static str> {
        let reported = (0..2).any(|i| s.pulls[i] == PullAt::Done && s.roots[i]);
        match () {
            () if (reported || s.old_root) && !s.exists() => {
                Some("a root that was reported has lost its blob")
            }
            () if s.reader == ReaderAt::Missed => Some("a reader missed a blob that was there all the time"),
            () => None,
        }
    }
}
