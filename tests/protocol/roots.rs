//! How a root gets its name and loses it: two workers of one run (a Job's pod that was frozen, and its replacement)
//! that found a tag moved in between, a later run, removal by hand, and a reader that knows roots by their names.

use super::search::{Model, Step, breaks, holds};

#[derive(Clone, Copy)]
struct Rules {
    /// Pull 5: link, never rename.
    link: bool,
    /// Pull 5: a run below one that is there is refused.
    refuse_lower: bool,
    /// rm: the runs that are gone are written down, and whatever lies under their names is no root.
    removed_note: bool,
    /// The note is asked for again after the link.
    removed_again: bool,
}

const ALL: Rules = Rules { link: true, refuse_lower: true, removed_note: true, removed_again: true };

struct Roots {
    rules: Rules,
    /// Removal by hand, and pulls by hand after it, which take the next free number.
    by_hand: bool,
    /// What the workers were started for: run and content.
    workers: [(u8, u8); 3],
}

/// Two workers of run 1 with different content, and one of run 2.
const CLUSTER: Roots = Roots { rules: ALL, by_hand: false, workers: [(1, 1), (1, 2), (2, 3)] };
const BY_HAND: Roots = Roots { rules: ALL, by_hand: true, workers: [(1, 1), (1, 1), (0, 2)] };

const RUNS: usize = 4;
const WHO: [&str; 3] = ["worker 1", "worker 2", "worker 3"];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum At {
    Start,
    /// Nothing forbids the run.
    Allowed(u8),
    /// The link was tried; whether the run had been removed by then.
    Linked(u8, bool),
    /// With the content of its root.
    Reported(u8, u8),
    Refused,
    Dead,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum RmAt {
    Idle,
    Noted(u8),
    Over(u8),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    workers: [At; 3],
    /// The content of each run's file.
    files: [u8; RUNS],
    /// All runs up to this one were removed by hand.
    removed: u8,
    rm: RmAt,
    /// What the reader knows of each run: files never change, so it reads each once.
    known: [u8; RUNS],
    /// A lower run was allowed while a higher one was there.
    late: bool,
    /// A run was reported although it was removed before its link.
    lied: bool,
}

impl Roots {
    /// Whether a run has a root: what lies under the name of a removed one is none.
    fn there(&self, s: &State, run: u8) -> bool {
        s.files[usize::from(run)] != 0 && !(self.rules.removed_note && run <= s.removed)
    }

    fn highest(&self, s: &State) -> u8 {
        (1..).take(RUNS - 1).filter(|run| self.there(s, *run)).max().unwrap_or(0)
    }

    fn forbidden(&self, s: &State, run: u8) -> bool {
        (self.rules.refuse_lower && self.highest(s) > run) || (self.rules.removed_note && s.removed >= run)
    }

    fn worker(&self, s: &State, i: usize, to: &mut dyn FnMut(Step, State)) {
        let (run, content) = self.workers[i];
        let mut go = |what, change: &dyn Fn(&mut State)| {
            let mut next = s.clone();
            change(&mut next);
            to(Step(WHO[i], what), next);
        };
        match s.workers[i] {
            At::Start => {
                // Run 0: a pull by hand that takes the next number when it begins.
                let noted = if self.rules.removed_note { s.removed } else { 0 };
                let run = if run == 0 { self.highest(s).max(noted) + 1 } else { run };
                if usize::from(run) >= RUNS {
                    return;
                }
                let late = self.highest(s) > run;
                if self.forbidden(s, run) {
                    go("link_root: refused", &|n| n.workers[i] = At::Refused);
                } else {
                    go("link_root: the run is allowed", &|n| {
                        n.workers[i] = At::Allowed(run);
                        n.late |= late;
                    });
                }
            }
            At::Allowed(run) => {
                let file = usize::from(run);
                if self.rules.link {
                    go("link_root: link", &|n| {
                        if n.files[file] == 0 {
                            n.files[file] = content;
                        }
                        n.workers[i] = At::Linked(run, n.removed >= run);
                    });
                } else {
                    go("link_root: rename", &|n| {
                        n.files[file] = content;
                        n.workers[i] = At::Linked(run, false);
                    });
                }
            }
            At::Linked(run, removed) => {
                let file = usize::from(run);
                if self.rules.removed_again && self.rules.removed_note && s.removed >= run {
                    go("link_root: it was removed meanwhile", &|n| {
                        n.files[file] = 0;
                        n.workers[i] = At::Refused;
                    });
                } else if s.files[file] == content {
                    go("report success", &|n| {
                        n.workers[i] = At::Reported(run, content);
                        n.lied |= removed;
                    });
                } else {
                    go("link_root: the run is taken", &|n| n.workers[i] = At::Refused);
                }
            }
            At::Reported(..) | At::Refused | At::Dead => return,
        }
        go("killed", &|n| n.workers[i] = At::Dead);
    }
}

impl Model for Roots {
    type State = State;

    fn start(&self) -> Vec<State> {
        vec![State {
            workers: [At::Start; 3],
            files: [0; RUNS],
            removed: 0,
            rm: RmAt::Idle,
            known: [0; RUNS],
            late: false,
            lied: false,
        }]
    }

    fn steps(&self, s: &State, to: &mut dyn FnMut(Step, State)) {
        for i in 0..3 {
            self.worker(s, i, to);
        }
        match s.rm {
            RmAt::Idle if self.by_hand && self.highest(s) > 0 => {
                let highest = self.highest(s);
                to(
                    Step("rm", "remove_cache: notes the highest run"),
                    State { removed: highest, rm: RmAt::Noted(highest), ..s.clone() },
                );
            }
            RmAt::Noted(highest) => {
                let mut next = State { rm: RmAt::Over(highest), ..s.clone() };
                // Without the note nothing is promised yet.
                let promised = if self.rules.removed_note { highest } else { 0 };
                to(Step("rm", "killed"), State { rm: RmAt::Over(promised), ..next.clone() });
                next.files.iter_mut().take(usize::from(highest) + 1).for_each(|file| *file = 0);
                to(Step("rm", "remove_cache: removes the files, reports"), next);
            }
            RmAt::Idle | RmAt::Over(_) => {}
        }
        for run in 1..RUNS {
            let there = u8::try_from(run).is_ok_and(|run| self.there(s, run));
            if there && s.known[run] == 0 {
                let mut next = s.clone();
                next.known[run] = s.files[run];
                to(Step("mirror", "reads a root that is new to it"), next);
            }
        }
    }

    fn wrong(&self, s: &State) -> Option<&'static str> {
        let removed = match s.rm {
            RmAt::Over(highest) => highest,
            _ => 0,
        };
        let there = |run: &usize| u8::try_from(*run).is_ok_and(|run| self.there(s, run));
        let mut reported = s.workers.iter().filter_map(|at| match at {
            At::Reported(run, content) => Some((*run, *content)),
            _ => None,
        });
        let late = s.late && reported.clone().count() > 1;
        let changed =
            reported.any(|(run, content)| self.there(s, run) && s.files[usize::from(run)] != content);
        let twice = (1..RUNS).filter(there).any(|run| s.known[run] != 0 && s.known[run] != s.files[run]);
        let back = (1..=removed).any(|run| self.there(s, run));
        match () {
            () if changed => Some("a root that was reported has other content now"),
            () if twice => Some("a run that a reader knows has other content now"),
            () if late => Some("a run was reported although a higher one was complete before"),
            () if s.lied => Some("a run was reported although it was removed before its link"),
            () if back => Some("a run that was removed by hand is back"),
            () => None,
        }
    }
}

#[test]
fn a_root_never_changes_whoever_is_late() {
    holds("two workers of one run, one of the next", &CLUSTER);
}

#[test]
fn what_is_removed_by_hand_stays_removed_whoever_is_late() {
    holds("two workers of one run, rm, a pull by hand", &BY_HAND);
}

#[test]
fn roots_are_linked_never_renamed() {
    breaks("published by rename", &Roots { rules: Rules { link: false, ..ALL }, ..CLUSTER });
}

#[test]
fn a_lower_run_is_refused() {
    breaks("lower runs allowed", &Roots { rules: Rules { refuse_lower: false, ..ALL }, ..CLUSTER });
}

#[test]
fn rm_writes_down_which_runs_are_gone() {
    breaks("rm without a note", &Roots { rules: Rules { removed_note: false, ..ALL }, ..BY_HAND });
}

#[test]
fn the_note_is_asked_for_again_after_the_link() {
    breaks("note not asked for again", &Roots { rules: Rules { removed_again: false, ..ALL }, ..BY_HAND });
}
