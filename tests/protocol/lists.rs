//! Marks on roots, and lists that come late: an object is created, pulled, credited and perhaps deleted, while
//! collectors run with lists that were made before, each of which may be frozen for as long as it likes. All
//! marks are old enough.

use super::search::{Model, Step, breaks, holds};

#[derive(Clone, Copy)]
struct Rules {
    /// gc 3: a root is marked before it goes.
    mark_first: bool,
    /// gc 3: only by a list whose gc run had seen the mark.
    newer_list: bool,
    /// gc 3, as it would be with numbered runs: any run that began before the named one.
    by_number: bool,
}

const ALL: Rules = Rules { mark_first: true, newer_list: true, by_number: false };

struct Lists {
    rules: Rules,
}

const GCS: usize = 3;
const WHO: [&str; GCS] = ["gc 1", "gc 2", "gc 3"];
const LISTS: [&str; GCS] = ["lists for gc 1", "lists for gc 2", "lists for gc 3"];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Object {
    Absent,
    Created,
    /// Its root was linked and credited.
    Credited,
    Deleted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum At {
    Start,
    /// With a list: whether the object is on it, and the last gc run whose report had been read.
    Listed(bool, u8),
    /// The marks that were there were read; whether this one was.
    Judged(bool, u8, bool),
    Noted,
    Reported,
    Dead,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    object: Object,
    root: bool,
    /// Made by this gc run.
    mark: Option<u8>,
    /// The runs that saw the mark before they reported.
    saw: [bool; GCS],
    gcs: [At; GCS],
    /// The last run whose report was read; 0 none.
    read: u8,
}

impl Model for Lists {
    type State = State;

    fn start(&self) -> Vec<State> {
        vec![State {
            object: Object::Absent,
            root: false,
            mark: None,
            saw: [false; GCS],
            gcs: [At::Start; GCS],
            read: 0,
        }]
    }

    fn steps(&self, s: &State, to: &mut dyn FnMut(Step, State)) {
        let mut world = |what, change: &dyn Fn(&mut State)| {
            let mut next = s.clone();
            change(&mut next);
            to(Step("controller", what), next);
        };
        match s.object {
            Object::Absent => world("an object is created", &|n| n.object = Object::Created),
            Object::Created => world("its pull is credited", &|n| {
                n.object = Object::Credited;
                n.root = true;
            }),
            Object::Credited => world("the object is deleted", &|n| n.object = Object::Deleted),
            Object::Deleted => {}
        }
        for j in 0..GCS {
            let number = u8::try_from(j + 1).unwrap_or(0);
            // They are numbered in the order in which they begin.
            if s.gcs[j] == At::Start && (j == 0 || s.gcs[j - 1] != At::Start) {
                let listed = matches!(s.object, Object::Created | Object::Credited);
                world(LISTS[j], &|n| n.gcs[j] = At::Listed(listed, n.read));
            }
            if s.gcs[j] == At::Reported && s.read < number {
                world("reads a report", &|n| n.read = number);
            }
        }
        for j in 0..GCS {
            self.gc(s, j, to);
        }
    }

    fn wrong(&self, s: &State) -> Option<&'static str> {
        (s.object == Object::Credited && !s.root).then_some("the root of a living object is gone")
    }
}

impl Lists {
    fn gc(&self, s: &State, j: usize, to: &mut dyn FnMut(Step, State)) {
        let number = u8::try_from(j + 1).unwrap_or(0);
        let mut go = |what, change: &dyn Fn(&mut State)| {
            let mut next = s.clone();
            change(&mut next);
            to(Step(WHO[j], what), next);
        };
        match s.gcs[j] {
            At::Listed(listed, last) => go("condemn: reads the marks", &|n| {
                n.gcs[j] = At::Judged(listed, last, n.mark.is_some());
            }),
            At::Judged(true, ..) => go("condemn: listed, unmark", &|n| {
                n.mark = None;
                n.gcs[j] = At::Noted;
            }),
            At::Judged(false, last, marked) => {
                let named = last > 0 && s.saw[usize::from(last) - 1];
                let numbered = last > 0 && s.mark.is_some_and(|by| by <= last);
                let newer = match () {
                    () if self.rules.by_number => numbered,
                    () => named || !self.rules.newer_list,
                };
                let goes = s.root && ((marked && newer) || !self.rules.mark_first);
                if goes {
                    go("condemn: remove_root, unmark", &|n| {
                        n.root = false;
                        n.mark = None;
                        n.gcs[j] = At::Noted;
                    });
                } else {
                    go("condemn: mark, note_seen", &|n| {
                        if n.root {
                            n.mark = n.mark.or(Some(number));
                            n.saw[j] = true;
                        }
                        n.gcs[j] = At::Noted;
                    });
                }
            }
            At::Noted => go("report", &|n| n.gcs[j] = At::Reported),
            At::Start | At::Reported | At::Dead => return,
        }
        go("killed", &|n| n.gcs[j] = At::Dead);
    }
}

#[test]
fn no_list_however_late_removes_a_root_of_a_living_object() {
    holds("an object and three gcs with lists", &Lists { rules: ALL });
}

#[test]
fn a_deleted_object_s_root_goes_in_the_end() {
    // The other half: a rule that never lets anything go would hold as well.
    struct Goes(Lists);
    impl Model for Goes {
        type State = State;
        fn start(&self) -> Vec<State> {
            self.0.start()
        }
        fn steps(&self, state: &State, to: &mut dyn FnMut(Step, State)) {
            self.0.steps(state, to);
        }
        fn wrong(&self, s: &State) -> Option<&'static str> {
            (s.object == Object::Deleted && !s.root)
                .then_some("the root of the deleted object is gone, as it should be")
        }
    }
    breaks("how a root goes", &Goes(Lists { rules: ALL }));
}

#[test]
fn a_root_is_marked_before_it_goes() {
    breaks("removed without a mark", &Lists { rules: Rules { mark_first: false, ..ALL } });
}

#[test]
fn a_mark_is_not_acted_on_with_an_older_list() {
    breaks("acted on with an older list", &Lists { rules: Rules { newer_list: false, ..ALL } });
}

#[test]
fn numbers_of_runs_do_not_tell_which_list_is_newer() {
    breaks("an earlier run's mark, by its number", &Lists { rules: Rules { by_number: true, ..ALL } });
}
