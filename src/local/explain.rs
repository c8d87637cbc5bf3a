//! `imagecache explain`: what each field and annotation of a manifest will do on a platform, where each value comes
//! from, and the pull pod that would be made. Offline: nothing is asked of a cluster or a registry.

use std::{fmt::Write as _, path::Path, sync::Arc};

use serde::Serialize;
use serde_json::Value;

use super::{
    manifest,
    table::{Align, columns},
};
use crate::{
    api::{ImageCache, keys},
    cli::{ExplainArgs, Output},
    model::{
        annotations::{Annotations, Origin, Set, table::TABLE},
        class::{Class, EXIT_USAGE},
        cloud::Cloud,
        judge::{self, CacheRequest},
        plan::StartRun,
        profile::{Data, ECI_PROFILE, EKS_CONFIG, Profile},
        reference::Reference,
        request::{CacheKey, PullRequest, Transport},
        settings::Settings,
        snapshot::Wanted,
        text,
    },
    ops::out::{print, tell},
    render::{self, Worker},
};

/// What is said of one manifest.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explained {
    pub name: String,
    pub platform: Cloud,
    pub invalid: Vec<Problem>,
    pub settings: Vec<Setting>,
    pub annotations: Vec<Annotation>,
    pub notices: Vec<String>,
    /// The pod template of the pull Job; absent if the manifest is not valid.
    pub pod: Option<Value>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Problem {
    pub field: String,
    pub message: String,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Setting {
    pub setting: &'static str,
    pub value: String,
    pub from: String,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Annotation {
    pub key: &'static str,
    pub value: String,
    pub does: String,
}

/// Runs the command and returns the exit status.
pub fn run(args: &ExplainArgs) -> u8 {
    match explained(args) {
        Ok(all) => {
            for one in &all {
                match args.output {
                    Output::Json => print(&serde_json::to_string(one).unwrap_or_default()),
                    Output::Text => print(one.to_text().trim_end()),
                }
            }
            let invalid = all.iter().any(|one| !one.invalid.is_empty());
            for (one, problem) in all.iter().flat_map(|one| one.invalid.iter().map(move |p| (one, p))) {
                tell(&format!("{}: {}: {}", one.name, problem.field, problem.message));
            }
            if invalid { Class::InvalidSpec.exit_code() } else { 0 }
        }
        Err(error) => {
            tell(&error);
            EXIT_USAGE
        }
    }
}

fn explained(args: &ExplainArgs) -> Result<Vec<Explained>, String> {
    let caches = manifest::caches(&args.filename).map_err(|e| e.to_string())?;
    let cloud = Cloud::from(args.platform);
    let settings = Settings {
        cloud,
        namespace: "imagecache-system".to_owned(),
        one_node: cloud == Cloud::Kubernetes && !args.store_on_all_nodes,
        strict_placement: args.strict_placement,
        host_aliases: args.names.host_aliases.as_ref().map(|aliases| aliases.0.clone()),
        dns: args.names.dns_config.clone(),
        acr: (!args.allow.is_empty()).then(|| args.allow.clone().allowed(None)),
        profile: Arc::new(profile(&args.defaults)?),
        snapshots: args.snapshot_class.clone().map(|class| Wanted::new(class, None)),
        ..Settings::default()
    };
    Ok(caches.iter().map(|cache| explain(cache, &settings)).collect())
}

/// The ConfigMaps, told apart by their names.
fn profile(files: &[impl AsRef<Path>]) -> Result<Profile, String> {
    #[derive(serde::Deserialize)]
    struct ConfigMap {
        metadata: Metadata,
        #[serde(default)]
        data: Data,
    }
    #[derive(serde::Deserialize)]
    struct Metadata {
        name: String,
    }
    let (mut eci, mut eks, mut placement) = (None, None, None);
    for file in files {
        let path = file.as_ref();
        let bad = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
        let text = std::fs::read_to_string(path).map_err(|e| bad(&e))?;
        let maps: Vec<ConfigMap> = serde_saphyr::from_multiple(&text).map_err(|e| bad(&e))?;
        for map in maps {
            let slot = match map.metadata.name.as_str() {
                ECI_PROFILE => &mut eci,
                EKS_CONFIG => &mut eks,
                _ => &mut placement,
            };
            *slot = Some(map.data);
        }
    }
    let profile = Profile::read(eci.as_ref(), eks.as_ref(), placement.as_ref());
    if profile.problems.is_empty() { Ok(profile) } else { Err(profile.problems.join("\n")) }
}

pub fn explain(cache: &ImageCache, settings: &Settings) -> Explained {
    let none = Data::new();
    let annotations = cache.metadata.annotations.as_ref().unwrap_or(&none);
    let judged = judge::judge(cache, settings);
    let seen = judge::read(annotations, settings);
    let invalid = judged.request.as_ref().err().into_iter().flatten();
    let invalid =
        invalid.map(|i| Problem { field: i.field.clone(), message: text::cut(&i.message, 1000) }).collect();
    let written = TABLE.iter().filter_map(|row| Some((row, annotations.get(row.key)?)));
    let annotations = written
        .map(|(row, value)| Annotation {
            key: row.key,
            value: text::cut(value.trim(), 300),
            does: row.does(settings.cloud).replace('`', ""),
        })
        .collect();
    let request = judged.request.as_ref().ok();
    Explained {
        name: judged.object.name.clone(),
        platform: settings.cloud,
        invalid,
        settings: request.map(|request| rows(cache, request, &seen, settings)).unwrap_or_default(),
        annotations,
        notices: judged.notices,
        pod: request.and_then(|request| pod(&judged.object.name, request, settings)),
    }
}

fn rows(cache: &ImageCache, request: &CacheRequest, seen: &Annotations, settings: &Settings) -> Vec<Setting> {
    let mut rows = Vec::new();
    let mut row = |setting, value: String, from: String| rows.push(Setting { setting, value, from });
    let annotated = |set: Option<(&'static str, Origin)>, spec: Option<&str>, default: &str| match (set, spec)
    {
        (Some((key, origin)), _) => from(key, origin),
        (None, Some(field)) => field.to_owned(),
        (None, None) => default.to_owned(),
    };
    let spec = &cache.spec;
    row("images", joined(request.images.iter().map(Reference::to_string)), "spec.images".to_owned());
    if !request.secrets.is_empty() {
        let secrets = joined(request.secrets.iter().map(ToString::to_string));
        row("pull secrets", secrets, "spec.imagePullSecrets".to_owned());
    }
    let size = spec.image_cache_size.map(|_| "spec.imageCacheSize");
    row(
        "size",
        text::bytes(request.size_limit),
        annotated(whence(seen.size_gib.as_ref()), size, "default (--default-size)"),
    );
    let days = request.retention_days.map_or("for ever".to_owned(), |days| format!("{days} days"));
    let kept = spec.retention_days.map(|_| "spec.retentionDays");
    row("kept", days, annotated(whence(seen.retention_days.as_ref()), kept, "default"));
    if let Some(every) = &spec.refresh_interval {
        row("refreshed", format!("at least every {every}"), "spec.refreshInterval".to_owned());
    }
    if let Some(value) = &request.refresh {
        row("refreshed", format!("once for {value}"), keys::REFRESH.to_owned());
    }
    let platforms = match request.platforms.as_slice() {
        [] => "those of the nodes".to_owned(),
        some => joined(some.iter().map(ToString::to_string)),
    };
    let asked = (!spec.platforms.is_empty()).then_some("spec.platforms");
    let chosen = whence(seen.architecture.as_ref()).or_else(|| whence(seen.os.as_ref()));
    row("platforms pulled", platforms, annotated(chosen, asked, "default"));
    let reuse = if request.reuse { "by the rules of permission" } else { "never" };
    row(
        "reuse of layers",
        reuse.to_owned(),
        annotated(whence(seen.reuse.as_ref()), None, "default (--reuse-default)"),
    );
    if let Some(wanted) = &settings.snapshots {
        let class =
            wanted.class.as_ref().map_or("the default class".to_owned(), |class| format!("class {class}"));
        let when = if request.flash { "; ready before it is" } else { "; ready when it is" };
        row("snapshot", class + when, annotated(whence(seen.flash.as_ref()), None, "--snapshot-class"));
    }
    if request.referrers {
        row("signatures, SBOMs", "kept with the images".to_owned(), "spec.referrers".to_owned());
    }
    if !request.logins.is_empty() {
        let hosts = joined(request.logins.hosts.keys().map(ToString::to_string));
        row("lent logins", hosts, joined(seen.acr.keys.iter().map(|key| (*key).to_owned())));
    }
    for (host, access) in &request.access {
        let list = match access.transport {
            Transport::PlainHttp => &seen.plain_http,
            _ => &seen.skip_verify,
        };
        let how = match access.transport {
            Transport::PlainHttp => "plain HTTP",
            Transport::HttpsUnverified => "HTTPS, certificate not checked",
            Transport::Https => "HTTPS",
        };
        let anonymous = if request.anonymous.contains(host) { ", without credentials" } else { "" };
        let who = list.named.get(host).or(list.all.as_ref());
        row(
            "registry",
            format!("{host}: {how}{anonymous}"),
            who.map_or_else(String::new, |who| from(who.key, who.origin)),
        );
    }
    for (setting, set) in [
        ("subnets", &seen.subnets),
        ("security groups", &seen.security_groups),
        ("resource groups", &seen.resource_groups),
        ("existing EIP", &seen.existing_eips),
    ] {
        if let Some(set) = set {
            row(setting, set.value.join(", "), from(set.key, set.origin));
        }
    }
    if let Some(set) = &seen.new_eip {
        let details = seen.new_eip_details.iter().map(|set| set.value.clone());
        let value = if set.value == "true" { joined(details) } else { set.value.clone() };
        row("new EIP", format!("yes {value}").trim_end().to_owned(), from(set.key, set.origin));
    }
    if let Some(set) = &seen.hosts {
        let alias =
            |alias: &crate::model::lookup::HostAlias| format!("{} = {}", alias.hostnames.join(" "), alias.ip);
        row("host aliases", joined(set.value.iter().map(alias)), from(set.key, set.origin));
    }
    if let Some(set) = &seen.dns {
        row("name servers", set.value.to_resolv_conf().replace('\n', "; "), from(set.key, set.origin));
    }
    if let Some(host) = &settings.worker_host {
        row("worker image from", host.to_string(), "the operator".to_owned());
    }
    rows
}

fn whence<T>(set: Option<&Set<T>>) -> Option<(&'static str, Origin)> {
    set.map(|set| (set.key, set.origin))
}

fn from(key: &str, origin: Origin) -> String {
    match origin {
        Origin::Object => key.to_owned(),
        Origin::Operator => format!("{origin}, {key}"),
        Origin::EciProfile | Origin::EksConfig => format!("{origin} ({key})"),
    }
}

fn joined(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(", ")
}

/// As the operator would make it, with stand-ins for what only a cluster knows.
fn pod(name: &str, request: &CacheRequest, settings: &Settings) -> Option<Value> {
    let cache = CacheKey::of_uid("00000000-0000-0000-0000-000000000000");
    let start = StartRun {
        request: PullRequest {
            name: name.to_owned(),
            inputs: request.inputs.clone(),
            platforms: request.platforms.clone(),
            size_limit: Some(request.size_limit),
            access: request.access.clone(),
            reuse: request.reuse,
            credentials_over_http: settings.credentials_over_http,
            referrers: request.referrers,
            dialect: request.dialect,
            lookup: request.lookup.clone(),
            acr_domains: request.logins.domains(),
            ..PullRequest::new(cache, request.images.clone())
        },
        secrets: request.secrets.clone(),
        hosts: request.images.iter().map(Reference::host).cloned().collect(),
        logins: request.logins.clone(),
        pod: request.pod.clone(),
        eips: request.eips.clone(),
    };
    let worker = Worker {
        namespace: settings.namespace.clone(),
        image: "imagecache".to_owned(),
        pull_policy: None,
        pull_secrets: Vec::new(),
        store_claim: "imagecache-store".to_owned(),
        one_node: settings.one_node,
        resources: render::default_resources(),
        auth_realms: Vec::new(),
    };
    let job = render::job::job(&start, &worker).ok()?;
    serde_json::to_value(job.spec?.template).ok()
}

impl Explained {
    pub fn to_text(&self) -> String {
        let mut out = format!("ImageCache {}, platform {}\n", self.name, self.platform);
        if !self.settings.is_empty() {
            let header = [("SETTING", Align::Left), ("VALUE", Align::Left), ("FROM", Align::Left)];
            let row = |s: &Setting| vec![s.setting.to_owned(), s.value.clone(), s.from.clone()];
            let rows: Vec<_> = self.settings.iter().map(row).collect();
            let _ = write!(out, "\n{}", columns(&header, &rows));
        }
        if !self.annotations.is_empty() {
            let header = [("ANNOTATION", Align::Left), ("VALUE", Align::Left), ("WHAT IT DOES", Align::Left)];
            let row = |a: &Annotation| vec![a.key.to_owned(), a.value.clone(), a.does.clone()];
            let rows: Vec<_> = self.annotations.iter().map(row).collect();
            let _ = write!(out, "\n{}", columns(&header, &rows));
        }
        let mut list = |title: &str, lines: &[String]| {
            if !lines.is_empty() {
                let _ = write!(out, "\n{title}\n");
                for line in lines {
                    let _ = writeln!(out, "- {line}");
                }
            }
        };
        list(
            "NOT VALID",
            &self.invalid.iter().map(|p| format!("{}: {}", p.field, p.message)).collect::<Vec<_>>(),
        );
        list("NOTICES", &self.notices);
        if let Some(pod) = &self.pod {
            let yaml = serde_saphyr::to_string(pod).unwrap_or_default();
            let _ = write!(out, "\nPULL POD\n{yaml}");
        }
        out
    }
}
