//! The result as a text that `kubectl apply -f -` reads.

use serde_json::{Value, json};

/// A document for each object.
pub fn to_yaml(objects: &[Value]) -> Result<String, serde_saphyr::ser::Error> {
    let documents: Result<Vec<String>, _> = objects.iter().map(serde_saphyr::to_string).collect();
    Ok(documents?.join("---\n"))
}

/// One object, or a list.
pub fn to_json(objects: &[Value]) -> String {
    match objects {
        [one] => format!("{one:#}\n"),
        many => format!("{:#}\n", json!({ "apiVersion": "v1", "kind": "List", "items": many })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_yaml_takes_for_something_else_stay_strings() {
        let words = [
            "true",
            "False",
            "yes",
            "No",
            "on",
            "off",
            "y",
            "n",
            "null",
            "~",
            "",
            " a",
            "7",
            "007",
            "0x1f",
            "0o7",
            "1_000",
            "1e3",
            ".5",
            ".inf",
            ".nan",
            "12:30",
            "2024-01-02",
            "a: b",
            "# a",
            "- a",
            "@a",
            "`a",
            "%a",
            "*a",
            "&a",
            "!a",
            "|",
            ">",
            "[",
            "{",
            "a #b",
            "=",
            "<<",
            "é",
            "a\nb\n",
            "tab\t",
            "'",
            "\"",
            "\\",
            "---",
            "...",
            "{\"A\":2}",
        ];
        let object = json!({ "spec": words.as_slice() });
        let text = to_yaml(std::slice::from_ref(&object)).unwrap();
        assert_eq!(serde_saphyr::from_str::<Value>(&text).unwrap(), object);
        // The YAML of kubectl is 1.1.
        for word in
            ["yes", "No", "on", "off", "y", "n", "007", "0x1f", "1_000", "12:30", "2024-01-02", "=", "<<"]
        {
            assert!(!text.contains(&format!("- {word}\n")), "{word} is not quoted:\n{text}");
        }
    }

    #[test]
    fn several_objects_are_several_documents_or_one_list() {
        let objects = [json!({"a": 1}), json!({"b": [1]})];
        let text = to_yaml(&objects).unwrap();
        assert_eq!(serde_saphyr::from_multiple::<Value>(&text).unwrap(), objects);
        let list: Value = serde_json::from_str(&to_json(&objects)).unwrap();
        assert_eq!((list["kind"].as_str(), &list["items"][1]), (Some("List"), &objects[1]));
        assert_eq!(serde_json::from_str::<Value>(&to_json(&objects[..1])).unwrap(), objects[0]);
    }
}
