//! The unfinished file of an older attempt. Its owner may only be frozen, and write on when it wakes: what upstream
//! sent it, which may be anything. Locks are not modelled: they save work, and may not work.

use super::search::{Model, Step, breaks, holds};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum At {
    Start,
    /// Writing to this file.
    Writing(usize),
    /// Its bytes were hashed and are right.
    Hashed(usize),
    Done,
    Dead,
}

/// What the bytes of a file are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Bytes {
    Nothing,
    /// As far as they go.
    Half,
    Right,
    Wrong,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    attempts: [At; 2],
    /// The private file of each attempt.
    files: [Bytes; 2],
    /// Which file has the final name.
    published: Option<usize>,
}

struct Ingest {
    /// Pull 2: durable ranges of an older attempt are copied to a file of our own and hashed again.
    copied: bool,
}

const WHO: [&str; 2] = ["older attempt", "newer attempt"];

impl Model for Ingest {
    type State = State;

    fn start(&self) -> Vec<State> {
        vec![State { attempts: [At::Start; 2], files: [Bytes::Nothing; 2], published: None }]
    }

    fn steps(&self, s: &State, to: &mut dyn FnMut(Step, State)) {
        for i in 0..2 {
            let mut go = |what, change: &dyn Fn(&mut State)| {
                let mut next = s.clone();
                change(&mut next);
                to(Step(WHO[i], what), next);
            };
            match s.attempts[i] {
                At::Start => {
                    go("create a file of its own", &|n| n.attempts[i] = At::Writing(i));
                    if i == 1 && s.files[0] != Bytes::Nothing {
                        if self.copied {
                            go("copy what the older attempt has", &|n| {
                                n.files[1] = n.files[0];
                                n.attempts[1] = At::Writing(1);
                            });
                        } else {
                            go("continue the older attempt's file", &|n| n.attempts[1] = At::Writing(0));
                        }
                    }
                }
                At::Writing(file) => {
                    go("write: the first half", &|n| n.files[file] = Bytes::Half);
                    go("write: something wrong", &|n| n.files[file] = Bytes::Wrong);
                    if s.files[file] == Bytes::Half {
                        go("write: the rest", &|n| n.files[file] = Bytes::Right);
                    }
                    match s.files[file] {
                        Bytes::Right => go("hash: right", &|n| n.attempts[i] = At::Hashed(file)),
                        Bytes::Wrong => go("hash: wrong, begin again", &|n| {
                            n.files[i] = Bytes::Nothing;
                            n.attempts[i] = At::Writing(i);
                        }),
                        Bytes::Nothing | Bytes::Half => {}
                    }
                }
                At::Hashed(file) => go("publish: rename", &|n| {
                    n.published = Some(file);
                    n.attempts[i] = At::Done;
                }),
                At::Done | At::Dead => continue,
            }
            go("killed", &|n| n.attempts[i] = At::Dead);
        }
    }

    fn wrong(&self, s: &State) -> Option<&'static str> {
        s.published
            .is_some_and(|file| s.files[file] != Bytes::Right)
            .then_some("a blob has its final name, and other bytes than it names")
    }
}

#[test]
fn whatever_a_frozen_attempt_writes_later_no_blob_changes() {
    holds("two attempts at one blob", &Ingest { copied: true });
}

#[test]
fn the_file_of_an_older_attempt_is_never_continued() {
    breaks("continued instead of copied", &Ingest { copied: false });
}
