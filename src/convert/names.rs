//! Names for objects that lose their namespace. The rule is one that a person can apply without running it: a name
//! that only one object wants is kept; of those that want the same one, each gets its namespace in front; what is
//! still the same gets -2, -3 in the order of the input.

use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub namespace: Option<String>,
    pub name: String,
}

/// A name for each, all different, and none that is taken.
pub(super) fn distinct(taken: &BTreeSet<String>, wanted: &[Wanted]) -> Vec<String> {
    let same = count(wanted.iter().map(|wanted| wanted.name.as_str()));
    let candidates: Vec<String> = wanted
        .iter()
        .map(|Wanted { namespace, name }| match namespace {
            Some(namespace) if same[name.as_str()] > 1 || taken.contains(name) => {
                format!("{namespace}-{name}")
            }
            _ => name.clone(),
        })
        .collect();
    let same = count(candidates.iter().map(String::as_str));
    // Before a number is given: it must not take a name from an object that has it alone.
    let mut used: BTreeSet<String> = taken.clone();
    used.extend(same.iter().filter(|(_, n)| **n == 1).map(|(name, _)| (*name).to_owned()));
    let number = |name: &String| {
        if same[name.as_str()] == 1 && !taken.contains(name) {
            return name.clone();
        }
        let numbered = (2..).map(|n| format!("{name}-{n}"));
        let free = std::iter::once(name.clone()).chain(numbered).find(|name| used.insert(name.clone()));
        free.unwrap_or_else(|| name.clone())
    };
    candidates.iter().map(number).collect()
}

fn count<'a>(names: impl Iterator<Item = &'a str>) -> BTreeMap<&'a str, usize> {
    let mut counts = BTreeMap::new();
    names.for_each(|name| *counts.entry(name).or_default() += 1);
    counts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn named(taken: &[&str], wanted: &[&str]) -> Vec<String> {
        let taken = taken.iter().map(|&name| name.to_owned()).collect();
        let wanted: Vec<Wanted> = wanted
            .iter()
            .map(|text| match text.split_once('/') {
                Some((namespace, name)) => Wanted { namespace: Some(namespace.into()), name: name.into() },
                None => Wanted { namespace: None, name: (*text).into() },
            })
            .collect();
        distinct(&taken, &wanted)
    }

    #[test]
    fn a_name_changes_only_if_another_object_wants_it_too() {
        assert_eq!(named(&[], &["a/shop", "b/web", "api"]), ["shop", "web", "api"]);
        assert_eq!(named(&[], &["a/shop", "b/shop"]), ["a-shop", "b-shop"]);
        assert_eq!(named(&["shop"], &["a/shop"]), ["a-shop"]);
        assert_eq!(named(&[], &["shop", "a/shop"]), ["shop", "a-shop"]);
        assert_eq!(named(&["shop"], &["shop", "shop"]), ["shop-2", "shop-3"]);
        assert_eq!(named(&[], &["shop", "shop", "shop-2"]), ["shop", "shop-3", "shop-2"]);
        assert_eq!(named(&[], &["a-b/c", "a/b-c", "x/c", "x/b-c"]), ["a-b-c", "a-b-c-2", "x-c", "x-b-c"]);
    }

    proptest! {
        #[test]
        fn all_names_are_distinct_and_none_is_taken(
            wanted in proptest::collection::vec("([ab]/)?[ab](-[ab2])?", 0..8),
            taken in proptest::collection::btree_set("[ab](-[ab2])?", 0..3),
        ) {
            let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
            let taken: Vec<&str> = taken.iter().map(String::as_str).collect();
            let names = named(&taken, &wanted);
            let all: BTreeSet<&str> = names.iter().map(String::as_str).chain(taken.iter().copied()).collect();
            prop_assert_eq!(all.len(), names.len() + taken.len());
        }
    }
}
