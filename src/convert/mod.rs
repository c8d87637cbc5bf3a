//! Other clouds' image caches as ours: objects of their custom resources in, `eci.alibabacloud.com/v1 ImageCache` out,
//! and one sentence for everything that has no counterpart. Foreign objects are parsed at the edge, each dialect in a
//! file of its own; `docs/convert.md` has the tables.

mod cci;
mod foreign;
mod names;
mod output;
mod remarks;
mod source;
mod tke;
mod vci;

use std::collections::BTreeSet;

use serde_json::Value;

use self::{
    foreign::Draft,
    names::Wanted,
    remarks::{Place, Refused, Remarks},
    source::Source,
};
pub use self::{
    output::{to_json, to_yaml},
    remarks::{Remark, Weight},
    source::{InputError, Text},
};
use crate::{
    api::keys,
    model::{
        annotations::table::TABLE,
        judge::{is_dns_name, judge_spec},
        settings::Settings,
    },
};

/// What one ImageCache may list (`maxItems` of the schema).
const MAX_IMAGES: usize = 20;

#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The namespace of pull secrets that are named without one.
    pub namespace: Option<String>,
}

#[derive(Clone, Debug, Default)]
pub struct Converted {
    /// In the order of the input.
    pub objects: Vec<Value>,
    pub remarks: Vec<Remark>,
}

impl Converted {
    /// The heaviest of what was remarked.
    pub fn weight(&self) -> Option<Weight> {
        self.remarks.iter().map(|remark| remark.weight).max()
    }
}

struct Dialect {
    api_version: &'static str,
    kind: &'static str,
    /// Where the cloud's own annotations have their keys.
    domains: &'static [&'static str],
    read: fn(&Value, &Options, &mut Remarks) -> Result<Draft, Refused>,
}

const DIALECTS: &[Dialect] = &[
    Dialect { api_version: tke::API_VERSION, kind: tke::KIND, domains: &["tencent.com"], read: tke::read },
    Dialect {
        api_version: cci::API_VERSION,
        kind: cci::KIND,
        domains: &["cci.io", "huaweicloud.com"],
        read: cci::read,
    },
    Dialect { api_version: vci::API_VERSION, kind: vci::KIND, domains: &["volcengine.com"], read: vci::read },
];

enum Made {
    /// Ours already: it stays as it came.
    Own(Value),
    New(Place, Box<Draft>),
}

/// Converts everything that is in the texts. What cannot be converted is remarked, and the rest still comes out.
pub fn convert(texts: &[Text], options: &Options) -> Result<Converted, InputError> {
    let (mut made, mut remarks) = (Vec::new(), Vec::new());
    for (order, source) in source::objects(texts)?.into_iter().enumerate() {
        let mut said = Remarks::new(source.place(order));
        made.extend(read(source, options, &mut said).unwrap_or_default());
        remarks.extend(said.list);
    }
    let objects = name_apart(made, &mut remarks);
    remarks.sort_by_key(|remark| remark.place.order);
    Ok(Converted { objects, remarks })
}

fn read(source: Source, options: &Options, said: &mut Remarks) -> Result<Vec<Made>, Refused> {
    let (Some(api_version), Some(kind)) = (source.word("apiVersion"), source.word("kind")) else {
        return Err(said.refuse("", "this is no Kubernetes object: it has no apiVersion and kind"));
    };
    if kind == "ImageCache" && api_version.strip_prefix(keys::GROUP) == Some("/v1") {
        return Ok(vec![Made::Own(source.value)]);
    }
    let Some(dialect) = DIALECTS.iter().find(|d| d.api_version == api_version && d.kind == kind) else {
        said.lose("", "skipped: no image cache of a cloud that is known here");
        return Ok(Vec::new());
    };
    let draft = (dialect.read)(&source.value, options, said)?;
    for key in draft.annotations.keys().filter(|key| dialect.owns(key) && !is_known(key)) {
        said.lose("metadata.annotations", format!("{key} stays, and has no effect here"));
    }
    if !is_dns_name(&draft.name, 253) {
        return Err(said.refuse("metadata.name", format!("{:?} is no name of an object", draft.name)));
    }
    let drafts = split(draft, said);
    for draft in &drafts {
        let (judged, _) = judge_spec(&draft.annotations, &draft.spec, &Settings::default());
        if let Err(invalid) = judged {
            for wrong in &invalid {
                said.refuse(&wrong.field, &wrong.message);
            }
            return Err(Refused);
        }
    }
    Ok(drafts.into_iter().map(|draft| Made::New(said.place.clone(), Box::new(draft))).collect())
}

impl Dialect {
    fn owns(&self, key: &str) -> bool {
        let prefix = key.split_once('/').map_or("", |(prefix, _)| prefix);
        let parts = self.domains.iter().filter_map(|domain| prefix.strip_suffix(domain));
        parts.into_iter().any(|rest| rest.is_empty() || rest.ends_with('.'))
    }
}

fn is_known(key: &str) -> bool {
    TABLE.iter().any(|row| row.key == key)
}

/// One ImageCache for each 20 images: `shop`, `shop-2`, `shop-3`.
fn split(draft: Draft, said: &mut Remarks) -> Vec<Draft> {
    if draft.spec.images.len() <= MAX_IMAGES {
        return vec![draft];
    }
    let parts: Vec<Draft> = draft
        .spec
        .images
        .chunks(MAX_IMAGES)
        .enumerate()
        .map(|(i, images)| {
            let mut part = draft.clone();
            part.spec.images = images.to_vec();
            if i > 0 {
                part.name = format!("{}-{}", draft.name, i + 1);
            }
            part
        })
        .collect();
    let names: Vec<&str> = parts.iter().map(|part| part.name.as_str()).collect();
    let n = draft.spec.images.len();
    said.note(
        "spec.images",
        format!(
            "{n} images are more than the {MAX_IMAGES} of one ImageCache: they become {}",
            names.join(", ")
        ),
    );
    parts
}

/// Gives every object a name of its own; ours keep theirs.
fn name_apart(made: Vec<Made>, remarks: &mut Vec<Remark>) -> Vec<Value> {
    let taken: BTreeSet<String> = made
        .iter()
        .filter_map(|made| match made {
            Made::Own(value) => value.pointer("/metadata/name")?.as_str().map(str::to_owned),
            Made::New(..) => None,
        })
        .collect();
    let wanted: Vec<Wanted> = made
        .iter()
        .filter_map(|made| match made {
            Made::New(_, draft) => {
                Some(Wanted { namespace: draft.namespace.clone(), name: draft.name.clone() })
            }
            Made::Own(_) => None,
        })
        .collect();
    let mut names = names::distinct(&taken, &wanted).into_iter();
    let mut objects = Vec::new();
    for made in made {
        let (place, mut draft) = match made {
            Made::Own(value) => {
                objects.push(value);
                continue;
            }
            Made::New(place, draft) => (place, draft),
        };
        let name = names.next().unwrap_or_else(|| draft.name.clone());
        let mut said = Remarks::new(place);
        if let Some(namespace) = &draft.namespace {
            said.note(
                "metadata.namespace",
                format!("an ImageCache has no namespace: {namespace} is left out"),
            );
        }
        if name != draft.name {
            said.note(
                "metadata.name",
                format!("{} is the name of another object too: this one becomes {name}", draft.name),
            );
        }
        if is_dns_name(&name, 253) {
            draft.name = name;
            objects.push(draft.object());
        } else {
            said.refuse("metadata.name", format!("{name} is too long: give it another name"));
        }
        remarks.extend(said.list);
    }
    objects
}
