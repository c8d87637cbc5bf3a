//! What is said about an object that was converted: where it is, which field, and one sentence.

use std::{collections::BTreeMap, fmt};

use serde_json::Value;

/// How much a remark matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// The result means the same; worth knowing.
    Note,
    /// Something has no counterpart, or had to be guessed.
    Loss,
    /// An object could not be converted.
    Refusal,
}

/// Where an object stands in the input, and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub order: usize,
    /// `caches.yaml, document 2, item 3`
    pub at: String,
    /// `eks.cloud.tencent.com/v1 ImageCache shop`; empty if that is not known.
    pub object: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    pub place: Place,
    pub weight: Weight,
    /// Empty: the object as a whole.
    pub field: String,
    pub sentence: String,
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { at, object, .. } = &self.place;
        let parts = [at.as_str(), object, &self.field, &self.sentence];
        let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        f.write_str(&parts.join(": "))
    }
}

/// The object cannot be converted; why is among the remarks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refused;

/// The remarks about one object.
#[derive(Debug)]
pub(super) struct Remarks {
    pub place: Place,
    pub list: Vec<Remark>,
}

impl Remarks {
    pub(super) fn new(place: Place) -> Self {
        Self { place, list: Vec::new() }
    }

    fn add(&mut self, weight: Weight, field: &str, sentence: String) {
        self.list.push(Remark { place: self.place.clone(), weight, field: field.to_owned(), sentence });
    }

    pub(super) fn note(&mut self, field: &str, sentence: impl Into<String>) {
        self.add(Weight::Note, field, sentence.into());
    }

    pub(super) fn lose(&mut self, field: &str, sentence: impl Into<String>) {
        self.add(Weight::Loss, field, sentence.into());
    }

    pub(super) fn refuse(&mut self, field: &str, sentence: impl Into<String>) -> Refused {
        self.add(Weight::Refusal, field, sentence.into());
        Refused
    }

    /// For a setting that asks for something which an ImageCache cannot.
    pub(super) fn no_counterpart<T>(&mut self, field: &str, value: Option<&T>, what: &str) {
        if value.is_some() {
            self.lose(field, format!("no counterpart: {what}"));
        }
    }

    /// Fields that the dialect's types do not have.
    pub(super) fn unknown(&mut self, parent: &str, fields: &BTreeMap<String, Value>) {
        for field in fields.keys() {
            let dot = if parent.is_empty() { "" } else { "." };
            self.lose(&format!("{parent}{dot}{field}"), "this field is not known here and is left out");
        }
    }
}
