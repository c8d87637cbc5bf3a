//! The input: YAML with any number of documents, or JSON; lists stand for their items.

use serde_json::Value;

use super::remarks::Place;

/// A file's name and what is in it.
#[derive(Clone, Debug)]
pub struct Text {
    pub name: String,
    pub text: String,
}

#[derive(Debug, thiserror::Error)]
#[error("{name}: {reason}")]
pub struct InputError {
    name: String,
    reason: String,
}

/// One object, and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Source {
    at: String,
    pub value: Value,
}

impl Source {
    pub(super) fn word(&self, field: &str) -> Option<&str> {
        self.value.get(field)?.as_str().filter(|word| !word.is_empty())
    }

    pub(super) fn place(&self, order: usize) -> Place {
        let metadata = |field: &str| self.value.get("metadata")?.get(field)?.as_str();
        let name = match (metadata("namespace"), metadata("name")) {
            (Some(namespace), Some(name)) => Some(format!("{namespace}/{name}")),
            (None, name) => name.map(str::to_owned),
            (Some(_), None) => None,
        };
        let words = [self.word("apiVersion"), self.word("kind"), name.as_deref()];
        let object = words.into_iter().flatten().collect::<Vec<_>>().join(" ");
        Place { order, at: self.at.clone(), object }
    }
}

/// All objects. Empty documents are none, as for kubectl.
pub(super) fn objects(texts: &[Text]) -> Result<Vec<Source>, InputError> {
    let mut all = Vec::new();
    for Text { name, text } in texts {
        let documents: Vec<Value> = serde_saphyr::from_multiple(text)
            .map_err(|error| InputError { name: name.clone(), reason: error.to_string() })?;
        for (i, value) in documents.into_iter().enumerate() {
            flatten(Source { at: format!("{name}, document {}", i + 1), value }, &mut all);
        }
    }
    Ok(all)
}

/// A list in a list is taken apart too.
fn flatten(mut source: Source, all: &mut Vec<Source>) {
    let kind = source.word("kind").unwrap_or_default();
    let Some(item_kind) = kind.strip_suffix("List").map(str::to_owned) else { return all.push(source) };
    let Some(Value::Array(items)) = source.value.get_mut("items").map(Value::take) else {
        return all.push(source);
    };
    let api_version = source.value.get("apiVersion").cloned();
    for (i, mut value) in items.into_iter().enumerate() {
        // Items of a typed list may leave out what the list says.
        if let (Some(item), false) = (value.as_object_mut(), item_kind.is_empty()) {
            item.entry("kind").or_insert_with(|| item_kind.clone().into());
            if let Some(api_version) = &api_version {
                item.entry("apiVersion").or_insert_with(|| api_version.clone());
            }
        }
        flatten(Source { at: format!("{}, item {}", source.at, i + 1), value }, all);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(text: &str) -> Vec<String> {
        let texts = [Text { name: "f".into(), text: text.into() }];
        let places = objects(&texts).unwrap().into_iter().map(|source| source.place(0));
        places.map(|place| format!("{}: {}", place.at, place.object)).collect()
    }

    #[test]
    fn documents_count_from_one_and_empty_ones_are_none() {
        let text =
            "---\n# nothing\n---\napiVersion: v1\nkind: A\n---\nkind: B\nmetadata: {name: a, namespace: s}\n";
        assert_eq!(places(text), ["f, document 1: v1 A", "f, document 2: B s/a"]);
    }

    #[test]
    fn lists_are_their_items_and_lend_them_their_kind() {
        let text = r#"{"apiVersion": "x/v1", "kind": "CacheList", "items": [{"metadata": {"name": "a"}},
            {"apiVersion": "v1", "kind": "List", "items": [{"kind": "C"}]}]}"#;
        assert_eq!(places(text), ["f, document 1, item 1: x/v1 Cache a", "f, document 1, item 2, item 1: C"]);
    }

    #[test]
    fn what_is_no_yaml_is_refused_with_the_place() {
        let texts = [Text { name: "f.yaml".into(), text: "a: [1".into() }];
        let error = objects(&texts).unwrap_err().to_string();
        assert!(error.starts_with("f.yaml: ") && error.contains("line"), "{error}");
    }
}
