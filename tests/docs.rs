//! Pages that are made from the code: `UPDATE_DOCS=1 cargo test --test docs` writes them again.
#![allow(clippy::unwrap_used, clippy::format_push_string)]

use imagecache::api::keys::REFRESH;
use imagecache::model::{annotations::table::TABLE, class::Class, cloud::Cloud, request::Dialect};

#[test]
fn the_page_of_annotations_is_what_the_table_says() {
    let mut page = "# Annotations on an ImageCache\n\nMade from the table in `src/model/annotations/table.rs`: a row \
        for each key, and under *platform* what the key does where the operator runs with that `--platform` (`pull -f` \
        and `explain` by hand: `kubernetes`).\n\n\
        - What is not honoured becomes a notice in status and an event, never silence. A value that is not valid makes \
        the object `InvalidSpec`; all errors are told at once, one sentence for each key.\n\
        - A key that looks like a misspelt one of these gets a notice with the likely one. Others are left alone.\n\
        - An annotation wins over the field of the spec that sets the same thing, with a notice. The object wins over \
        the ConfigMap of its platform (`kube-system/eci-profile`, `kube-system/eks-config`), and that over the \
        operator's flags (`KCI_HOST_ALIASES`, `KCI_DNS_CONFIG`).\n\
        - On a platform a key acts if it is of that cloud. Ids of another cloud are looked up in the operator's \
        placement map (`placement.md`).\n\
        - Registries are named exactly as the images name them, with the port if they have one. A host that is listed \
        both as plain HTTP and as not verified is plain HTTP. `all` carries no credentials.\n\
        - On the clouds' platforms the registry of the operator's own image is left out of what reaches the pod: a \
        cache does not decide how that image is verified or where its name leads.\n\n\
        `imagecache explain -f cache.yaml --platform eci` says all this for one manifest.\n"
        .to_owned();
    for (dialect, name) in [
        (Dialect::Eci, "Alibaba Cloud ECI"),
        (Dialect::Kci, "Kingsoft Cloud KCI"),
        (Dialect::Tke, "Tencent TKE Serverless"),
    ] {
        page += &format!(
            "\n## {name}\n\n| key | value | asks for | platform | here | page |\n|---|---|---|---|---|---|\n"
        );
        for row in TABLE.iter().filter(|row| row.dialect == dialect) {
            let date = if row.page.date.is_empty() { String::new() } else { format!(", {}", row.page.date) };
            let source = format!("[{}]({}){date}", row.page.title, row.page.address);
            let (value, meaning) = (row.form.describe(), row.meaning);
            for (platforms, does) in by_platform(|cloud| row.does(cloud)) {
                page +=
                    &format!("| `{}` | {value} | {meaning} | {platforms} | {does} | {source} |\n", row.key);
            }
        }
    }
    page += &format!(
        "\n## Of this operator\n\n| key | value | does |\n|---|---|---|\n| `{REFRESH}` | any text | A value that was not \
         there before asks the registries anew what the tags mean; only what changed is pulled, and the cache stays \
         ready. Images named by digest are never asked for again. A cache that expired and was kept is pulled again. \
         Beside it `spec.refreshInterval` does the same at intervals. |\n"
    );
    compare("docs/annotations.md", &page);
}

/// Platforms where a key does the same share a row.
fn by_platform(does: impl Fn(Cloud) -> String) -> Vec<(String, String)> {
    let mut rows: Vec<(String, String)> = Vec::new();
    for cloud in Cloud::ALL {
        let text = does(cloud);
        match rows.iter_mut().find(|(_, known)| *known == text) {
            Some((platforms, _)) => *platforms += &format!(", {cloud}"),
            None => rows.push((cloud.to_string(), text)),
        }
    }
    if let [(platforms, _)] = rows.as_mut_slice() {
        "all".clone_into(platforms);
    }
    rows
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

fn compare(path: &str, page: &str) {
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, page).unwrap();
    }
    let there = std::fs::read_to_string(path).unwrap_or_default();
    assert!(there == page, "{path} differs from the code: run UPDATE_DOCS=1 cargo test --test docs");
}
