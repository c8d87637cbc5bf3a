//! Pages that are made from the code: `UPDATE_DOCS=1 cargo test --test docs` writes them again.
#![allow(clippy::unwrap_used, clippy::format_push_string)]

use imagecache::model::{
    annotations::table::{Effect, Form, Row, TABLE},
    class::Class,
    request::Dialect,
};

#[test]
fn the_page_of_annotations_is_what_the_table_says() {
    let mut page = "# Annotations on an ImageCache\n\nMade from the table in `src/model/annotations/table.rs`. \
        What is not honoured here becomes a notice in status and an event, never silence; a key under one of these \
        prefixes that is not in the table is reported as unknown. An annotation wins over the field of the spec that \
        sets the same thing, with a notice.\n"
        .to_owned();
    for (dialect, name) in [
        (Dialect::Eci, "Alibaba Cloud ECI"),
        (Dialect::Kci, "Kingsoft Cloud KCI"),
        (Dialect::Tke, "Tencent TKE Serverless"),
    ] {
        page += &format!("\n## {name}\n\n| key | value | asks for | here |\n|---|---|---|---|\n");
        for row in TABLE.iter().filter(|row| row.dialect == dialect) {
            page += &format!("| `{}` | {} | {} | {} |\n", row.key, form(row.form), row.meaning, effect(row));
        }
    }
    compare("docs/annotations.md", &page);
}

#[test]
fn the_page_of_failures_names_every_class_with_its_exit_status() {
    let page = std::fs::read_to_string("docs/errors.md").unwrap();
    for class in Class::ALL {
        let row =
            format!("| {class} | {} | {} |", class.exit_code(), format!("{:?}", class.kind()).to_lowercase());
        assert!(page.contains(&row), "docs/errors.md lacks {row}");
    }
}

fn form(form: Form) -> String {
    match form {
        Form::Hosts => "`host[:port]`, comma separated".to_owned(),
        Form::HostsOrAll => "the same, or `all`".to_owned(),
        Form::Number(least, most) => format!("{least} to {most}"),
        Form::Flag => "`true` or `false`".to_owned(),
        Form::Instances => "`[region:]cri-…`, comma separated".to_owned(),
        Form::Role => "`acs:ram::ACCOUNT:role/NAME`".to_owned(),
        Form::Word(words) => words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", "),
        Form::Text => "text".to_owned(),
    }
}

fn effect(row: &Row) -> &'static str {
    match row.effect {
        Effect::PlainHttp => "honoured: these registries are reached over plain HTTP",
        Effect::SkipVerify => "honoured: the certificates of these registries are not checked",
        Effect::Size => "honoured, as `spec.imageCacheSize`",
        Effect::Retention => "honoured, as `spec.retentionDays`",
        Effect::Reuse => "honoured, by the rules of permission",
        Effect::Flash => "a notice: there are no snapshots yet",
        Effect::Architecture | Effect::Os => "honoured: the platform that is pulled",
        Effect::AcrInstances | Effect::AcrServiceRole | Effect::AcrUserRole => {
            "honoured where the operator has an identity at Alibaba Cloud and allows it, else a notice: see [acr.md](acr.md)"
        }
        Effect::None => "a notice",
    }
}

fn compare(path: &str, page: &str) {
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, page).unwrap();
    }
    let there = std::fs::read_to_string(path).unwrap_or_default();
    assert!(there == page, "{path} differs from the code: run UPDATE_DOCS=1 cargo test --test docs");
}
