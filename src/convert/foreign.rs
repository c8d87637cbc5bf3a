//! What foreign objects have in common: how they are parsed, their metadata, and the values that every dialect spells
//! a little differently.

use std::collections::BTreeMap;

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{
    Options,
    remarks::{Refused, Remarks},
};
use crate::{
    api::{ImageCacheSpec, keys},
    model::judge::SecretName,
};

/// kubectl's own memory of what was applied.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// An object of another cloud. Its status is left out: it tells of things that are not taken over.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", bound = "S: DeserializeOwned")]
pub(super) struct Foreign<S> {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    metadata: Metadata,
    pub spec: S,
    #[serde(rename = "status", default)]
    _status: Value,
    #[serde(flatten)]
    unknown: BTreeMap<String, Value>,
}

/// `metadata`, less what the API server writes.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
    owner_references: Option<Vec<Value>>,
    finalizers: Option<Vec<String>>,
}

/// An ImageCache that has no certain name yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Draft {
    pub name: String,
    pub namespace: Option<String>,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub spec: ImageCacheSpec,
}

impl Draft {
    pub(super) fn object(&self) -> Value {
        let mut metadata = json!({ "name": self.name });
        for (field, map) in [("labels", &self.labels), ("annotations", &self.annotations)] {
            if !map.is_empty() {
                metadata[field] = json!(map);
            }
        }
        json!({
            "apiVersion": format!("{}/v1", keys::GROUP), "kind": "ImageCache", "metadata": metadata, "spec": self.spec
        })
    }
}

impl<S: DeserializeOwned> Foreign<S> {
    pub(super) fn parse(value: &Value, said: &mut Remarks) -> Result<(Draft, S), Refused> {
        let foreign: Self = match Self::deserialize(value) {
            Ok(foreign) => foreign,
            Err(error) => return Err(said.refuse(&blame::<Self>(value), error.to_string())),
        };
        said.unknown("", &foreign.unknown);
        let metadata = foreign.metadata;
        let Some(name) = metadata.name.filter(|name| !name.is_empty()) else {
            return Err(said.refuse("metadata.name", "an object without a name cannot be converted"));
        };
        for (field, there) in [
            ("metadata.ownerReferences", metadata.owner_references.is_some_and(|list| !list.is_empty())),
            ("metadata.finalizers", metadata.finalizers.is_some_and(|list| !list.is_empty())),
        ] {
            if there {
                said.lose(field, "it binds the old object and is left out");
            }
        }
        let mut labels = metadata.labels.unwrap_or_default();
        let mut annotations = metadata.annotations.unwrap_or_default();
        annotations.remove(LAST_APPLIED);
        // A tool that finds its key on an object that it did not make may remove the object.
        for (map, keys, what) in [
            (&mut labels, keys::GITOPS_LABELS, "metadata.labels"),
            (&mut annotations, keys::GITOPS_ANNOTATIONS, "metadata.annotations"),
        ] {
            for key in keys.iter().filter(|key| map.remove(**key).is_some()) {
                said.note(what, format!("{key} is of the tool that made the old object and is left out"));
            }
        }
        Ok((
            Draft { name, namespace: metadata.namespace, labels, annotations, ..Draft::default() },
            foreign.spec,
        ))
    }
}

/// The field that keeps an object from being read: the one without which it can be.
fn blame<T: DeserializeOwned>(value: &Value) -> String {
    for parent in ["spec", "metadata"] {
        let Some(fields) = value.get(parent).and_then(Value::as_object) else { return parent.to_owned() };
        for field in fields.keys() {
            let mut without = value.clone();
            without[parent][field] = Value::Null;
            if serde_json::from_value::<T>(without).is_ok() {
                return format!("{parent}.{field}");
            }
        }
    }
    "spec".to_owned()
}

/// GiB: what is below our least is raised to it.
pub(super) fn size(field: &str, gib: Option<f64>, said: &mut Remarks) -> Option<i32> {
    const LEAST: f64 = 20.0;
    const MOST: f64 = 32768.0;
    let gib = gib?;
    let ours = gib.ceil().clamp(LEAST, MOST);
    if gib > MOST {
        said.lose(field, format!("{gib} GiB is more than a cache may have: it becomes {MOST}"));
    } else if (ours - gib).abs() > f64::EPSILON {
        said.note(field, format!("{gib} becomes {ours} GiB: sizes are whole numbers from {LEAST}"));
    }
    #[allow(clippy::cast_possible_truncation)] // a whole number in these bounds
    Some(ours as i32)
}

/// Days: 0 is for ever in the dialects, where ours leaves the field out.
pub(super) fn retention(field: &str, days: Option<i64>, said: &mut Remarks) -> Option<i32> {
    const MOST: i64 = 65536;
    let days = days.filter(|days| *days != 0)?;
    if !(1..=MOST).contains(&days) {
        said.lose(field, format!("{days} is no number of days from 1 to {MOST}: the cache is kept for ever"));
        return None;
    }
    i32::try_from(days).ok()
}

/// Pull secrets, each once, as `namespace:name`; `home` is where one without a namespace lives.
pub(super) fn secrets<'a>(
    named: impl Iterator<Item = (String, &'a str)>,
    home: Option<&str>,
    options: &Options,
    said: &mut Remarks,
) -> Vec<String> {
    let mut all = Vec::new();
    for (field, text) in named {
        let full = if text.contains([':', '/']) {
            text.to_owned()
        } else if let Some(namespace) = options.namespace.as_deref().or(home) {
            format!("{namespace}:{text}")
        } else {
            said.lose(
                &field,
                format!("secret {text} has no namespace: default is guessed; --namespace names another"),
            );
            format!("default:{text}")
        };
        match full.parse::<SecretName>() {
            Ok(secret) => {
                let secret = secret.to_string();
                if !all.contains(&secret) {
                    all.push(secret);
                }
            }
            Err(error) => said.lose(&field, format!("left out: {error}")),
        }
    }
    all
}

/// Adds a setting of ours, unless the object says it already.
pub(super) fn annotate(draft: &mut Draft, key: &str, value: String, field: &str, said: &mut Remarks) {
    match draft.annotations.get(key) {
        Some(there) if *there != value => {
            said.lose(field, format!("the annotation {key} is there already and stays: {there:?}"));
        }
        Some(_) => {}
        None => drop(draft.annotations.insert(key.to_owned(), value)),
    }
}
