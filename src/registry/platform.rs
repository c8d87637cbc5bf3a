//! Which child of an index is for a platform. Pure.
//! Source: containerd, platforms (compare.go, defaults); containers/image, `platform_matcher.go`.

use super::manifest::Child;
use crate::model::platform::Platform;

/// The best child: the wanted variant, then lower ones; then architectures that run on it; then one that does not
/// say for what it is. Attestations never.
pub fn choose<'a>(children: &'a [Child], wanted: &Platform) -> Option<&'a Child> {
    let fits = |child: &&Child| !child.attestation && child.is_image_or_index();
    for (architecture, variant) in preferences(wanted) {
        let found = children.iter().filter(fits).find(|child| {
            child.platform.as_ref().is_some_and(|p| {
                let p = normal(p);
                p.os == wanted.os && p.architecture == architecture && variant.fits(p.variant.as_deref())
            })
        });
        if found.is_some() {
            return found;
        }
    }
    children.iter().filter(fits).find(|child| child.platform.is_none())
}

enum Variant {
    Is(&'static str),
    Exactly(String),
    None,
    Any,
}

impl Variant {
    fn fits(&self, variant: Option<&str>) -> bool {
        match self {
            Self::Is(name) => variant == Some(name),
            Self::Exactly(name) => variant == Some(name),
            Self::None => variant.is_none(),
            Self::Any => true,
        }
    }
}

/// Variants of an architecture, best first.
fn known(architecture: &str) -> &'static [&'static str] {
    match architecture {
        "arm" => &["v8", "v7", "v6", "v5"],
        "arm64" => &["v9", "v8"],
        "amd64" => &["v4", "v3", "v2", "v1"],
        _ => &[],
    }
}

/// The variant that a missing one stands for. It is the first that is tried without a wish, and what
/// higher ones come down to.
fn implied(architecture: &str) -> Option<&'static str> {
    match architecture {
        "arm" => Some("v7"),
        "arm64" => Some("v8"),
        "amd64" => Some("v1"),
        _ => None,
    }
}

fn preferences(wanted: &Platform) -> Vec<(String, Variant)> {
    let wanted = normal(wanted);
    let mut list: Vec<(String, Variant)> = Vec::new();
    {
        let mut add = |variant| list.push((wanted.architecture.clone(), variant));
        let names = known(&wanted.architecture);
        if let Some(variant) = &wanted.variant {
            add(Variant::Exactly(variant.clone()));
            let below = names.iter().position(|n| n == variant).map_or(names.len(), |at| at + 1);
            names[below..].iter().for_each(|name| add(Variant::Is(name)));
            add(Variant::None);
        } else {
            add(Variant::None);
            let from = implied(&wanted.architecture);
            let at = names.iter().position(|n| Some(*n) == from).unwrap_or(0);
            names[at..].iter().for_each(|name| add(Variant::Is(name)));
            if names.is_empty() {
                add(Variant::Any);
            }
        }
    }
    match wanted.architecture.as_str() {
        "amd64" => list.push(("386".into(), Variant::Any)),
        "arm64" => {
            list.extend(known("arm").iter().map(|name| ("arm".to_owned(), Variant::Is(name))));
            list.push(("arm".into(), Variant::None));
        }
        _ => {}
    }
    list
}

/// The names that containerd takes for one another; `arm64/v8` is what `arm64` means.
fn normal(platform: &Platform) -> Platform {
    let (architecture, variant) = match (platform.architecture.as_str(), platform.variant.as_deref()) {
        ("x86_64" | "x86-64", variant) => ("amd64", variant),
        ("i386" | "i686" | "x86", variant) => ("386", variant),
        ("aarch64" | "arm64", Some("8" | "v8")) | ("aarch64", None) => ("arm64", None),
        ("amd64", Some("v1")) => ("amd64", None),
        ("armhf", _) | ("arm", Some("7")) => ("arm", Some("v7")),
        ("armel", _) | ("arm", Some("6")) => ("arm", Some("v6")),
        ("arm", Some("5")) => ("arm", Some("v5")),
        ("arm", Some("8")) => ("arm", Some("v8")),
        (architecture, variant) => (architecture, variant),
    };
    Platform {
        os: platform.os.clone(),
        architecture: architecture.to_owned(),
        variant: variant.filter(|v| !v.is_empty()).map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::digest::Digest;

    fn child(platform: &str) -> Child {
        Child {
            digest: Digest::sha256(platform.as_bytes()),
            size: 1,
            media_type: super::super::manifest::OCI_MANIFEST.into(),
            platform: (!platform.is_empty()).then(|| platform.parse().unwrap()),
            attestation: platform.starts_with("unknown"),
        }
    }

    #[test]
    fn the_wanted_variant_is_taken_then_lower_ones_then_what_runs_on_it() {
        for (children, wanted, chosen) in [
            ("linux/amd64 linux/arm64", "linux/arm64", Some("linux/arm64")),
            ("linux/arm64/v8", "linux/arm64", Some("linux/arm64/v8")),
            ("linux/arm64", "linux/arm64/v8", Some("linux/arm64")),
            ("linux/arm64/v9 linux/arm64/v8", "linux/arm64", Some("linux/arm64/v8")),
            ("linux/arm/v5 linux/arm/v6 linux/arm/v7", "linux/arm/v7", Some("linux/arm/v7")),
            ("linux/arm/v5 linux/arm/v6", "linux/arm/v7", Some("linux/arm/v6")),
            ("linux/arm/v7", "linux/arm/v6", None),
            ("linux/arm", "linux/arm/v7", Some("linux/arm")),
            ("linux/arm/v6 linux/arm/v7", "linux/arm", Some("linux/arm/v7")),
            ("linux/amd64/v3 linux/amd64/v2", "linux/amd64/v3", Some("linux/amd64/v3")),
            ("linux/amd64/v2 linux/amd64", "linux/amd64/v3", Some("linux/amd64/v2")),
            ("linux/amd64/v3", "linux/amd64", None),
            ("linux/386", "linux/amd64", Some("linux/386")),
            ("linux/arm/v7", "linux/arm64", Some("linux/arm/v7")),
            ("linux/x86_64", "linux/amd64", Some("linux/x86_64")),
            ("windows/amd64 linux/amd64", "linux/amd64", Some("linux/amd64")),
            ("windows/amd64", "linux/amd64", None),
            ("linux/riscv64/rva22", "linux/riscv64", Some("linux/riscv64/rva22")),
            ("unknown/unknown", "linux/amd64", None),
            ("", "linux/amd64", None),
        ] {
            let list: Vec<Child> = children.split(' ').filter(|c| !c.is_empty()).map(child).collect();
            let got = choose(&list, &wanted.parse().unwrap()).and_then(|c| c.platform.clone());
            assert_eq!(got.map(|p| p.to_string()).as_deref(), chosen, "{children} for {wanted}");
        }
    }

    #[test]
    fn a_child_that_does_not_say_its_platform_comes_last() {
        let list = [child(""), child("linux/amd64")];
        assert_eq!(choose(&list, &"linux/amd64".parse().unwrap()), Some(&list[1]));
        assert_eq!(choose(&list, &"linux/s390x".parse().unwrap()), Some(&list[0]));
    }
}
