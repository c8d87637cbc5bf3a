//! Every state that any order of steps can reach, breadth first, so that what it finds is the shortest way there.

use std::{
    collections::HashSet,
    fmt,
    hash::{BuildHasherDefault, Hash, Hasher},
};

pub(super) trait Model {
    type State: Clone + Eq + Hash + fmt::Debug;
    fn start(&self) -> Vec<Self::State>;
    /// Every step that somebody can take now.
    fn steps(&self, state: &Self::State, to: &mut dyn FnMut(Step, Self::State));
    /// What must never be.
    fn wrong(&self, state: &Self::State) -> Option<&'static str>;
}

/// Who does what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step(pub &'static str, pub &'static str);

pub(super) struct Violation {
    pub what: &'static str,
    pub trace: Vec<Step>,
    pub states: usize,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, Step(who, what)) in self.trace.iter().enumerate() {
            writeln!(f, "  {:2}. {who}: {what}", n + 1)?;
        }
        write!(f, "  => {}", self.what)
    }
}

struct Node<S> {
    state: S,
    from: usize,
    step: Step,
}

/// The number of states, if none of them is wrong.
pub(super) fn search<M: Model>(model: &M) -> Result<usize, Violation> {
    let start = |state| Node { state, from: usize::MAX, step: Step("", "") };
    let mut nodes: Vec<Node<M::State>> = model.start().into_iter().map(start).collect();
    // States are known by a hash of 64 bits: at a million of them a clash has a chance of one in 30 million.
    let mut known: HashSet<u64, BuildHasherDefault<Fast>> =
        nodes.iter().map(|node| fingerprint(&node.state)).collect();
    let mut at = 0;
    while at < nodes.len() {
        if let Some(what) = model.wrong(&nodes[at].state) {
            return Err(Violation { what, trace: trace(&nodes, at), states: nodes.len() });
        }
        let state = nodes[at].state.clone();
        model.steps(&state, &mut |step, next| {
            if known.insert(fingerprint(&next)) {
                nodes.push(Node { state: next, from: at, step });
            }
        });
        at += 1;
    }
    Ok(nodes.len())
}

fn trace<S>(nodes: &[Node<S>], mut at: usize) -> Vec<Step> {
    let mut trace = Vec::new();
    while nodes[at].from != usize::MAX {
        trace.push(nodes[at].step);
        at = nodes[at].from;
    }
    trace.reverse();
    trace
}

/// The protocol as it is: prints the number of states.
pub(super) fn holds<M: Model>(name: &str, model: &M) {
    match search(model) {
        Ok(states) => println!("{name}: {states} states, 0 violations"),
        Err(violation) => panic!("{name}: violated after {} states\n{violation}", violation.states),
    }
}

/// The protocol with a rule dropped: prints what comes of it.
pub(super) fn breaks<M: Model>(without: &str, model: &M) {
    match search(model) {
        Ok(states) => {
            panic!("{without}: {states} states and no violation, so the rule is not needed or not modelled")
        }
        Err(violation) => println!("{without}: found after {} states\n{violation}\n", violation.states),
    }
}

fn fingerprint<T: Hash>(state: &T) -> u64 {
    let mut hasher = Fast::default();
    state.hash(&mut hasher);
    // The last multiplication leaves the low bits weak.
    let mixed = (hasher.0 ^ (hasher.0 >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ (mixed >> 29)
}

#[derive(Default)]
struct Fast(u64);

impl Hasher for Fast {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }
    fn write_u8(&mut self, n: u8) {
        self.write_u64(u64::from(n));
    }
    fn write_u64(&mut self, n: u64) {
        self.0 = (self.0.rotate_left(5) ^ n.wrapping_add(1)).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
    fn finish(&self) -> u64 {
        self.0
    }
}
