//! What can be typed. Values are checked here, so that the roles get types that cannot hold a bad one.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{
    acr::flags::{AcrArgs, AllowArgs},
    controller::flags::ControllerArgs,
    model::{
        cloud::Cloud,
        digest::Digest,
        lookup::{self, Dns, HostAlias},
        platform::Platform,
        reference::{Reference, RegistryHost},
        request::CacheKey,
    },
    ops::logging::LogFormat,
};

/// Keeps container images ready: on a cluster as an operator, or by hand on any machine.
#[derive(Debug, Parser)]
#[command(
    version,
    propagate_version = true,
    after_help = "\
Exit status: 0 good, 2 usage, 10 and above the class of the failure (docs/errors.md), 50 told to stop."
)]
pub struct Cli {
    /// How log lines look, on standard error.
    #[arg(long, global = true, value_enum, default_value = "human", env = "IMAGECACHE_LOG_FORMAT")]
    pub log_format: LogFormat,
    /// What is logged: a level, or a filter such as `imagecache=debug,kube=warn`.
    #[arg(long, global = true, default_value = "info", env = "IMAGECACHE_LOG", hide_env_values = true)]
    pub log: String,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the operator (in a cluster, or against the current kubeconfig).
    Controller(Box<ControllerArgs>),
    /// Pull images into a volume, by hand.
    Pull(Box<PullArgs>),
    /// Serve a volume's images as a read-only mirror.
    Serve(ServeArgs),
    /// Show what a volume holds: caches, images, digests, sizes.
    Ls(LsArgs),
    /// Re-hash everything a volume's caches need, name what is missing or broken, and fetch it again if wanted.
    Verify(VerifyArgs),
    /// Remove caches that were made by hand from a volume. Their bytes go with gc.
    Rm(RmArgs),
    /// Free what no cache of a volume needs any more.
    Gc(GcArgs),
    /// Write a cache to an OCI archive or layout, for another volume or another tool.
    Export(ExportArgs),
    /// Read an OCI archive or layout into a volume.
    Import(ImportArgs),
    /// Turn image caches of other clouds into ours: of TKE, Huawei CCI and Volcengine VCI.
    Convert(ConvertArgs),
    /// Say what every setting of a manifest will do, and show the pull pod. Offline.
    Explain(ExplainArgs),
    /// Print the CustomResourceDefinition.
    Crd,
    /// The pull pod's role: read a request, fill the volume, report.
    #[command(hide = true)]
    Worker(WorkerArgs),
    /// The export pod's role: fill a cache's own volume from the store, report.
    #[command(hide = true)]
    ExportVolume(ExportVolumeArgs),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people: a table, or a progress bar on a terminal.
    #[default]
    Text,
    /// For scripts: JSON, one object a line while something runs.
    Json,
}

/// How registries are reached, by hand.
#[derive(Debug, Args)]
pub struct UpstreamArgs {
    /// A registry that speaks plain HTTP, as the image names it.
    #[arg(long, value_name = "HOST[:PORT]")]
    pub plain_http: Vec<RegistryHost>,
    /// A registry whose certificate is not verified, as the image names it.
    #[arg(long, value_name = "HOST[:PORT]")]
    pub insecure: Vec<RegistryHost>,
    /// Credentials: a Docker or Podman configuration file.
    #[arg(long, value_name = "FILE", env = "REGISTRY_AUTH_FILE")]
    pub authfile: Option<PathBuf>,
    /// Trust this registry's token server on another host, as REGISTRY=REALM-HOST.
    #[arg(long, value_name = "REGISTRY=HOST", value_parser = realm)]
    pub auth_realm: Vec<(RegistryHost, String)>,
    /// Connections to one registry at a time; more are faster where the registry is far away.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub connections: u16,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imagecache pull --image nginx:1.27 --image redis:7 --volume /var/cache/images
  imagecache pull -f cache.yaml --volume /var/cache/images --authfile ~/.docker/config.json
  imagecache pull --images-from list.txt --volume /srv/images --plain-http registry.lan:5000 -o json")]
pub struct PullArgs {
    /// An ImageCache manifest; several documents make several caches. `-` is standard input.
    #[arg(short = 'f', long, value_name = "FILE", conflicts_with_all = ["image", "images_from"])]
    pub filename: Option<PathBuf>,
    /// An image reference. May be given many times.
    #[arg(long, value_name = "REF")]
    pub image: Vec<Reference>,
    /// A file with one image reference a line; `#` begins a comment. `-` is standard input.
    #[arg(long, value_name = "FILE")]
    pub images_from: Option<PathBuf>,
    /// The folder to fill. It is made if it is not there.
    #[arg(long, value_name = "DIR")]
    pub volume: PathBuf,
    /// The cache's name in the volume. Without one, a hash of the references is taken.
    #[arg(long, conflicts_with = "filename")]
    pub name: Option<String>,
    /// A platform to pull, such as linux/arm64. May be given many times; without one, this machine's.
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub platform: Vec<Platform>,
    #[command(flatten)]
    pub upstream: UpstreamArgs,
    /// A registry whose anonymous answers make an image public, although it is inside or speaks plain HTTP.
    #[arg(long, value_name = "HOST[:PORT]")]
    pub public_registry: Vec<RegistryHost>,
    /// Keep the attestations of images too (SBOM, provenance).
    #[arg(long)]
    pub attestations: bool,
    /// Keep what refers to the images too: signatures, attestations and SBOMs, by the referrers API or its fallback
    /// tag, and by cosign's tags.
    #[arg(long)]
    pub referrers: bool,
    /// Fetch every layer, even if the volume has it.
    #[arg(long)]
    pub no_reuse: bool,
    /// How progress and result are printed.
    #[arg(short, long, value_enum, default_value = "text")]
    pub output: Output,
    #[command(flatten)]
    pub acr: AcrArgs,
}

#[derive(Debug, Args)]
pub struct WorkerArgs {
    /// The request, as the controller wrote it.
    #[arg(long, value_name = "FILE")]
    pub request: PathBuf,
    /// A folder of Docker configuration files, used in the order of their names.
    #[arg(long, value_name = "DIR")]
    pub credentials: PathBuf,
    #[arg(long, value_name = "DIR")]
    pub volume: PathBuf,
    #[arg(long, value_name = "FILE", default_value = "/dev/termination-log")]
    pub termination_log: PathBuf,
    #[arg(long, value_name = "REGISTRY=HOST", value_parser = realm)]
    pub auth_realm: Vec<(RegistryHost, String)>,
}

#[derive(Debug, Args)]
pub struct ExportVolumeArgs {
    /// The store.
    #[arg(long, value_name = "DIR")]
    pub volume: PathBuf,
    /// The folder to fill.
    #[arg(long, value_name = "DIR")]
    pub to: PathBuf,
    /// UID of the cache.
    #[arg(long)]
    pub cache: CacheKey,
    /// The run that is reported.
    #[arg(long)]
    pub run: u64,
    /// Digest of the root that was credited.
    #[arg(long)]
    pub root: Digest,
    #[arg(long, value_name = "FILE", default_value = "/dev/termination-log")]
    pub termination_log: PathBuf,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  imagecache serve --volume /var/cache/images --listen 127.0.0.1:5000 --serve-private
  skopeo inspect --tls-verify=false docker://127.0.0.1:5000/docker.io/library/nginx:1.27")]
pub struct ServeArgs {
    /// The folder to serve. It is never written to.
    #[arg(long, value_name = "DIR")]
    pub volume: PathBuf,
    /// Address and port to listen on.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:5000")]
    pub listen: SocketAddr,
    /// Where /livez, /readyz, /report and /metrics are, apart from the registry; without it on the same address.
    #[arg(long, value_name = "ADDR")]
    pub admin_listen: Option<SocketAddr>,
    /// Serve images that are not proved public, to everybody who can reach the address.
    #[arg(long)]
    pub serve_private: bool,
    /// A registry whose tags are served although a cache reached it by settings of its own.
    #[arg(long, value_name = "HOST[:PORT]")]
    pub public_registry: Vec<RegistryHost>,
}

#[derive(Debug, Args)]
pub struct LsArgs {
    #[arg(value_name = "DIR")]
    pub volume: PathBuf,
    #[arg(short, long, value_enum, default_value = "text")]
    pub output: Output,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imagecache verify /srv/images
  imagecache verify /srv/images --repair --authfile ~/.docker/config.json --plain-http registry.lan:5000

Without --repair nothing is changed. With it, what is missing or broken comes again from the registry that it came from,
is verified, and takes the old one's place; what cannot be fetched stays as it is. Safe beside pulls, readers and gc.
Exit status: 0 all is good, or is again; else the class of the first failure, 27 where nothing was tried.")]
pub struct VerifyArgs {
    #[arg(value_name = "DIR")]
    pub volume: PathBuf,
    /// Fetch what is missing or broken again, from where it came.
    #[arg(long)]
    pub repair: bool,
    #[command(flatten)]
    pub upstream: UpstreamArgs,
    #[arg(short, long, value_enum, default_value = "text")]
    pub output: Output,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imagecache rm /srv/images shop
  imagecache rm /srv/images shop warehouse && imagecache gc /srv/images

A pull that runs meanwhile is not stopped: the run it makes is a new cache of that name.")]
pub struct RmArgs {
    #[arg(value_name = "DIR")]
    pub volume: PathBuf,
    /// Names or keys of caches, as `imagecache ls` shows them.
    #[arg(value_name = "NAME", required = true)]
    pub caches: Vec<String>,
    /// Also a cache of a cluster. Its controller pulls it again, if it still lives.
    #[arg(long)]
    pub force: bool,
    #[arg(short, long, value_enum, default_value = "text")]
    pub output: Output,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imagecache gc /srv/images --dry-run
  imagecache gc /srv/images --grace 0

Safe beside pulls, readers and itself. A blob goes in two runs: the first one takes it out, where readers still find
it; one that comes 15 minutes later or more frees its bytes. By hand no cache of a cluster is touched.")]
pub struct GcArgs {
    #[arg(value_name = "DIR")]
    pub volume: PathBuf,
    /// Change nothing, say what would be.
    #[arg(long)]
    pub dry_run: bool,
    /// Minutes that a blob stays after it came, although no cache needs it.
    #[arg(long, value_name = "MINUTES", default_value_t = 60)]
    pub grace: u32,
    /// The living caches of the cluster, as its controller wrote them. A list in parts is given part by part.
    #[arg(long, value_name = "FILE")]
    pub live: Vec<PathBuf>,
    /// No age is waited for. Loses data on a network file system; for tests on a local one.
    #[arg(long, hide = true)]
    pub unsafe_no_waiting: bool,
    /// As the pod of a Job: the report goes into the log and, in brief, into this file.
    #[arg(long, value_name = "FILE", hide = true)]
    pub termination_log: Option<PathBuf>,
    #[arg(short, long, value_enum, default_value = "text")]
    pub output: Output,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imagecache export /srv/images --cache shop --to shop.tar
  skopeo copy oci-archive:shop.tar:docker.io/library/nginx:1.27 docker://registry.lan/nginx:1.27
  ctr images import shop.tar
  imagecache export /srv/images --cache shop --to /mnt/usb/shop")]
pub struct ExportArgs {
    #[arg(value_name = "DIR")]
    pub volume: PathBuf,
    /// Name or key of the cache, as `imagecache ls` shows it.
    #[arg(long, value_name = "NAME")]
    pub cache: String,
    /// What is written: an archive if the name ends with .tar, else a folder.
    #[arg(long, value_name = "FILE|DIR")]
    pub to: PathBuf,
    #[arg(short, long, value_enum, default_value = "text")]
    pub output: Output,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imagecache import /srv/images shop.tar
  skopeo copy docker://nginx:1.27 oci-archive:nginx.tar && \\
    imagecache import /srv/images nginx.tar --name web --image nginx:1.27

Every byte is verified. Imported images are private: the mirror serves them with --serve-private.")]
pub struct ImportArgs {
    /// The folder to fill. It is made if it is not there.
    #[arg(value_name = "DIR")]
    pub volume: PathBuf,
    /// An OCI archive, or a folder with an OCI layout.
    #[arg(value_name = "FILE|DIR")]
    pub from: PathBuf,
    /// The cache's name in the volume. Without one, the name it was exported with, or the file's.
    #[arg(long)]
    pub name: Option<String>,
    /// What the image of an archive is called that holds only one.
    #[arg(long, value_name = "REF")]
    pub image: Option<Reference>,
    #[arg(short, long, value_enum, default_value = "text")]
    pub output: Output,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imagecache explain -f cache.yaml
  imagecache explain -f cache.yaml --platform eci --defaults eci-profile.yaml
  imagecache explain -f cache.yaml -o json | jq .pod

The exit status is 30 (InvalidSpec) when something in a manifest is not valid.")]
pub struct ExplainArgs {
    /// An ImageCache manifest; several documents are several caches. `-` is standard input.
    #[arg(short = 'f', long, value_name = "FILE")]
    pub filename: PathBuf,
    /// What runs the pull pods.
    #[arg(long, value_enum, default_value = "kubernetes")]
    pub platform: CloudArg,
    /// ConfigMaps of the cluster: eci-profile, eks-config, imagecache-placement. May be given many times.
    #[arg(long, value_name = "FILE")]
    pub defaults: Vec<PathBuf>,
    /// The store's volume can be mounted by many nodes.
    #[arg(long)]
    pub store_on_all_nodes: bool,
    /// A place that is not known makes an object invalid.
    #[arg(long)]
    pub strict_placement: bool,
    /// Snapshots are taken, with this VolumeSnapshotClass; an empty name is the default one.
    #[arg(long, value_name = "NAME")]
    pub snapshot_class: Option<String>,
    #[command(flatten)]
    pub names: NameArgs,
    #[arg(short, long, value_enum, default_value = "text")]
    pub output: Output,
    #[command(flatten)]
    pub allow: AllowArgs,
}

/// How names are looked up for caches that do not say.
#[derive(Clone, Debug, Args)]
pub struct NameArgs {
    /// Host aliases of all pulls, as JSON: `[{"ip":"10.0.0.5","hostnames":["registry.lan"]}]`.
    #[arg(long, value_name = "JSON", env = "KCI_HOST_ALIASES", value_parser = aliases)]
    pub host_aliases: Option<Aliases>,
    /// Name servers of all pulls, as JSON: `{"nameservers":["10.0.0.2"],"searches":[],"options":[]}`.
    #[arg(long, value_name = "JSON", env = "KCI_DNS_CONFIG", value_parser = lookup::pod_dns)]
    pub dns_config: Option<Dns>,
}

/// A list that is one value.
#[derive(Clone, Debug)]
pub struct Aliases(pub Vec<HostAlias>);

fn aliases(text: &str) -> Result<Aliases, String> {
    lookup::pod_aliases(text).map(Aliases)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CloudArg {
    /// Any cluster.
    Kubernetes,
    /// Alibaba Cloud ECI.
    Eci,
    /// Kingsoft Cloud KCI.
    Kci,
    /// Tencent TKE Serverless.
    Tke,
}

impl From<CloudArg> for Cloud {
    fn from(arg: CloudArg) -> Self {
        match arg {
            CloudArg::Kubernetes => Self::Kubernetes,
            CloudArg::Eci => Self::Eci,
            CloudArg::Kci => Self::Kci,
            CloudArg::Tke => Self::Tke,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A document for each object.
    Yaml,
    /// One object, or a List.
    Json,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imagecache convert -f tke-caches.yaml
  kubectl get imagecaches.eks.cloud.tencent.com -o yaml | imagecache convert -f - > ours.yaml
  imagecache convert --strict -f snapshots.yaml -o json > caches.json

Known are eks.cloud.tencent.com/v1 ImageCache, cci/v2 ImageSnapshot and
vci.volcengine.com/v1beta1 ImageCache, in many documents and in lists; our own objects pass
unchanged. Standard error has one sentence for every field that has no counterpart and every object
that is skipped. Of objects that would get one name each gets its namespace in front; what is still
the same gets -2, -3.

Exit status: 0 converted, 1 with --strict if something has no counterpart, 2 if an object could not
be read or there is none. docs/convert.md has the tables.")]
pub struct ConvertArgs {
    /// A file with objects, in YAML or JSON. May be given many times. `-` is standard input.
    #[arg(short = 'f', long, value_name = "FILE", required = true)]
    pub filename: Vec<PathBuf>,
    /// How the objects are printed.
    #[arg(short, long, value_enum, default_value = "yaml")]
    pub output: Format,
    /// Print nothing and fail if something has no counterpart.
    #[arg(long)]
    pub strict: bool,
    /// The namespace of pull secrets that are named without one.
    #[arg(short, long)]
    pub namespace: Option<String>,
}

/// `REGISTRY=REALM-HOST`
pub(crate) fn realm(text: &str) -> Result<(RegistryHost, String), String> {
    let (registry, host) = text
        .split_once('=')
        .ok_or("write REGISTRY=REALM-HOST, for example reg.example.com=auth.example.com")?;
    let registry = registry.parse().map_err(|e| format!("{e}"))?;
    host.parse::<RegistryHost>().map_err(|e| format!("{e}"))?;
    Ok((registry, host.to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_bad_reference_is_refused_with_its_reason() {
        let error =
            Cli::try_parse_from(["imagecache", "pull", "--image", "Nginx", "--volume", "x"]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("lower-case"), "{error}");
    }
}
