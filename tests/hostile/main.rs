//! What a hostile or broken registry can do, as one matrix: each row is a behaviour, the failure that has to come of
//! it, and for every row the same promises hold. Nothing wrong is kept in the store, no credential reaches a host that
//! it does not belong to, and no message repeats a secret or a body. `docs/hostile-registries.md` is the list.
#![allow(unreachable_pub, clippy::unwrap_used)] // a failed unwrap is a failed test

mod content;
mod row;
mod rows;
mod server;

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use imagecache::{
    model::{
        credentials::Credentials,
        digest::Digest,
        failure::Failure,
        reference::Reference,
        request::{Access, PullRequest, Transport},
    },
    ops::clock,
    pull::{self, Pull, meter::Meter},
    registry::{Client, Config, CredentialSource, Limits, manifest::Document},
    store::Store,
};

use tokio::runtime::Builder;

use content::Content;
use row::Row;
use server::{BASIC, BEARER, Opening, Server};

/// Far beyond all limits of a row.
const DEADLINE: Duration = Duration::from_mins(1);

/// Short enough for tests, long enough for a busy machine.
fn limits(slow: bool) -> Limits {
    let quick = Limits {
        backoff: Duration::from_millis(1),
        backoff_max: Duration::from_millis(2),
        retry_after_max: Duration::from_millis(20),
        ..Limits::default()
    };
    let second = Duration::from_secs(1);
    if !slow {
        return quick;
    }
    Limits {
        tls_handshake: second,
        headers: second,
        progress: second,
        document: second,
        rate_window: second,
        tries: 1,
        ..quick
    }
}

/// The registry of a row, another host, and how they are reached.
struct World {
    registry: Server,
    other: Server,
    request: PullRequest,
    row: Row,
}

impl World {
    async fn start(row: Row) -> Self {
        let registry =
            Server::start(row.opening, row.content.clone(), row.challenge, row.rules.clone()).await;
        let other = Server::start(Opening::Plain, Content::honest(), None, row.other.clone()).await;
        let port = other.url.rsplit(':').next().unwrap();
        registry.words(&[
            ("{own}", registry.url.clone()),
            ("{other}", other.url.clone()),
            ("{another name}", format!("http://localhost:{port}")),
            ("{layer}", Digest::sha256(&content::layer()).to_string()),
            ("{manifest}", Digest::sha256(content::manifest().to_string().as_bytes()).to_string()),
        ]);
        let transport = if row.https { Transport::HttpsUnverified } else { Transport::PlainHttp };
        let access = BTreeMap::from([(registry.host.clone(), Access { transport, overridden: true })]);
        let images: Vec<Reference> = vec![format!("{}/app:1", registry.host).parse().unwrap()];
        let platforms = vec!["linux/amd64".parse().unwrap()];
        let request = PullRequest { platforms, access, ..PullRequest::new("cache".parse().unwrap(), images) }
            .with_inputs();
        Self { registry, other, request, row }
    }

    fn client(&self) -> Client {
        let file = serde_json::json!({"auths": {
            self.registry.host.as_str(): {"username": "me", "password": "s3cret-password"}
        }});
        let source = CredentialSource::Fixed(Credentials::parse([file.to_string()]));
        let config = pull::client_config(&self.request, source, vec![]);
        Client::new(Config { limits: limits(self.row.slow), ..config }).unwrap()
    }

    /// Everything an image needs, read by the client alone.
    async fn read(&self) -> Result<(), Failure> {
        let (client, host) = (self.client(), &self.registry.host);
        let top = client.resolve(&self.request.images[0]).await?;
        let raw = client.manifest(host, "app", &top.digest, Some(top.size)).await?;
        let Document::Image { config, layers, .. } = raw.parse()? else { return Ok(()) };
        for part in layers.iter().chain([&config]) {
            let mut blob = client.blob(host, "app", &part.digest, part.size, 0).await?;
            let (mut all, mut piece) = (Vec::new(), vec![0; 64 << 10]);
            loop {
                match blob.read(&mut piece).await? {
                    0 => break,
                    read => all.extend_from_slice(&piece[..read]),
                }
            }
            assert_eq!(Digest::sha256(&all), part.digest, "{}", self.row.name);
        }
        Ok(())
    }

    /// The whole worker, and what it leaves behind.
    async fn pull(&self) -> Result<(), Failure> {
        let folder = tempfile::tempdir().unwrap();
        let pull = Pull {
            request: self.request.clone(),
            store: Store::create_or_open(folder.path()).unwrap(),
            client: self.client(),
            credentials: String::new(),
            resolve_again: false,
            meter: Arc::new(Meter::new(1)),
            now: clock::now(),
        };
        let outcome = pull.run().await;
        let name = self.row.name;
        assert!(!format!("{outcome:?}").contains("s3cret"), "{name}: {outcome:?}");
        assert_eq!(outcome.root.is_some(), outcome.failure.is_none(), "{name}");
        assert_eq!(names(&folder.path().join("roots/cache")).len(), usize::from(outcome.root.is_some()));
        let left: Vec<_> = names(&folder.path().join("ingest"));
        let left: Vec<_> = left.iter().filter(|name| !name.ends_with("lock")).collect();
        assert!(left.is_empty(), "{name}: {left:?}");
        for hex in names(&folder.path().join("blobs/sha256")) {
            let bytes = fs::read(folder.path().join("blobs/sha256").join(&hex)).unwrap();
            assert_eq!(Digest::sha256(&bytes).hex(), hex, "{name}: kept, although it is wrong");
        }
        outcome.failure.map_or(Ok(()), Err)
    }

    async fn ends(&self, how: &str, doing: impl Future<Output = Result<(), Failure>>) -> Option<String> {
        match tokio::time::timeout(DEADLINE, doing).await {
            Ok(result) => self.judge(how, &result),
            Err(_) => Some(format!("{} ({how}): it never ends", self.row.name)),
        }
    }

    /// What came of it is what the row says, and every secret stayed where it belongs.
    fn judge(&self, how: &str, result: &Result<(), Failure>) -> Option<String> {
        let complain = |what: String| Some(format!("{} ({how}): {what}", self.row.name));
        for seen in self.other.seen() {
            let sent = [&seen.line, &seen.head, &seen.body].map(|text| text.to_lowercase()).join(" ");
            if sent.contains("authorization") || sent.contains("cookie") || sent.contains("s3cret") {
                return complain(format!("the other host saw {seen:?}"));
            }
        }
        for seen in self.registry.seen() {
            let secrets = seen.head.lines().filter(|l| l.to_lowercase().starts_with("authorization:"));
            for line in secrets.filter(|line| !line.ends_with(BASIC) && !line.ends_with(BEARER)) {
                if !self.row.rules.iter().any(|rule| rule.part.contains("/token")) {
                    return complain(format!("an unknown secret: {line}"));
                }
            }
        }
        match (result, self.row.fails) {
            (Ok(()), None) => None,
            (Err(failure), Some((class, says)))
                if failure.class == class
                    && failure.message.contains(says)
                    && !failure.message.contains("s3cret")
                    && !failure.message.contains(char::is_control) =>
            {
                None
            }
            (result, wanted) => complain(format!("{result:?} instead of {wanted:?}")),
        }
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

async fn check(row: Row) -> Vec<String> {
    let mut wrong = Vec::new();
    if !row.worker_only {
        let world = World::start(row.clone()).await;
        wrong.extend(Box::pin(world.ends("client", world.read())).await);
    }
    let world = World::start(row).await;
    wrong.extend(Box::pin(world.ends("worker", world.pull())).await);
    wrong
}

/// A worker blocks its thread while it writes, so rows that run side by side have runtimes of their own.
#[test]
fn every_row_ends_as_it_says_and_leaves_neither_bytes_nor_secrets_behind() {
    let (left, wrong) = (Mutex::new(rows::all()), Mutex::new(Vec::new()));
    let work = || {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        while let Some(row) = pop(&left) {
            let complaints = runtime.block_on(check(row));
            wrong.lock().unwrap().extend(complaints);
        }
    };
    std::thread::scope(|scope| (0..8).for_each(|_| drop(scope.spawn(work))));
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{} complaints:\n{}", wrong.len(), wrong.join("\n"));
}

fn pop(left: &Mutex<Vec<Row>>) -> Option<Row> {
    left.lock().unwrap().pop()
}

#[test]
fn the_page_of_hostile_registries_is_what_the_rows_say() {
    let mut page = "# What a hostile or broken registry can do\n\nMade from the rows in `tests/hostile`, which run against the \
        client and against the whole worker. In every row nothing wrong is kept in the store, no credential reaches a host \
        that it does not belong to, and no message repeats a secret or a body.\n\n\
        | the registry sends | what comes of it | the message says |\n|---|---|---|\n"
        .to_owned();
    for row in rows::all() {
        let (class, says) = row.fails.map_or(("it ends well".to_owned(), ""), |(c, s)| (c.to_string(), s));
        page.extend(["| ", row.name, " | ", &class, " | ", says, " |\n"]);
    }
    let path = "docs/hostile-registries.md";
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(path, &page).unwrap();
    }
    let there = fs::read_to_string(path).unwrap_or_default();
    assert!(there == page, "{path} differs from the rows: run UPDATE_DOCS=1 cargo test --test hostile");
}
