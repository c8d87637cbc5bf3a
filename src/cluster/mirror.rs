//! The mirror's report on the store, read now and then. Best effort: without it nothing is known about lost
//! content, and everything else goes on.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use jiff::{SignedDuration, Timestamp};
use tokio::net::TcpStream;
use url::Url;

use crate::model::{
    facts::MirrorFact,
    request::CacheKey,
    volume::{SeenRoot, VolumeReport},
};

const TIMEOUT: Duration = Duration::from_secs(2);
/// Some hundred bytes for each root.
const MOST: usize = 16 * 1024 * 1024;
/// An older report is no longer taken for the present.
const FRESH: SignedDuration = SignedDuration::from_mins(5);

#[derive(Debug, Default)]
pub struct Mirror {
    url: Option<Url>,
    newest: Mutex<Option<(Timestamp, VolumeReport)>>,
}

#[derive(Debug, thiserror::Error)]
#[error("the mirror's report at {url}: {why}")]
pub struct MirrorError {
    url: Url,
    why: String,
}

/// Which caches a new report concerns.
#[derive(Debug, PartialEq, Eq)]
pub enum News {
    Nothing,
    Caches(Vec<CacheKey>),
    /// Another store is mounted.
    All,
}

impl Mirror {
    /// `base` is the address of the mirror, such as `http://imagecache-mirror.imagecache-system:5000`.
    pub fn new(base: Option<Url>) -> Self {
        let url = base.map(|mut url| {
            url.set_path("/report");
            url
        });
        Self { url, newest: Mutex::default() }
    }

    /// The newest report, cut down to one cache.
    pub fn fact(&self, cache: &CacheKey, now: Timestamp) -> Option<MirrorFact> {
        let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let (read, report) = newest.as_ref().filter(|(read, _)| now.duration_since(*read) < FRESH)?;
        let broken = report.broken.iter().filter(|root| root.cache == *cache);
        Some(MirrorFact {
            read: *read,
            store: report.store.clone()?,
            broken: broken.map(|root| root.run).collect(),
        })
    }

    /// The store that the mirror serves, as far as known.
    pub fn store(&self) -> Option<String> {
        let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        newest.as_ref().and_then(|(_, report)| report.store.clone())
    }

    /// The newest report, if it is not an old one.
    pub fn volume(&self, now: Timestamp) -> Option<VolumeReport> {
        let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = newest.as_ref().filter(|(read, _)| now.duration_since(*read) < FRESH);
        fresh.map(|(_, report)| report.clone())
    }

    /// When it was read, and the bytes that roots name.
    pub fn used(&self, now: Timestamp) -> Option<(Timestamp, u64)> {
        let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = newest.as_ref().filter(|(read, _)| now.duration_since(*read) < FRESH);
        fresh.map(|(read, report)| (*read, report.used))
    }

    /// The roots of a report that was read after this, if there is one.
    pub fn roots_since(&self, since: Timestamp, now: Timestamp) -> Vec<SeenRoot> {
        let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = newest.as_ref().filter(|(read, _)| *read > since && now.duration_since(*read) < FRESH);
        fresh.map(|(_, report)| report.roots.clone()).unwrap_or_default()
    }

    /// Reads it once. Says whose facts changed; caches by UID.
    pub async fn refresh(&self, now: Timestamp) -> Result<News, MirrorError> {
        let Some(url) = &self.url else { return Ok(News::Nothing) };
        let error = |why: String| MirrorError { url: url.clone(), why };
        let body = match tokio::time::timeout(TIMEOUT, get(url)).await {
            Ok(body) => body.map_err(error)?,
            Err(_) => return Err(error(format!("no answer within {} s", TIMEOUT.as_secs()))),
        };
        let report: VolumeReport = serde_json::from_slice(&body).map_err(|e| error(e.to_string()))?;
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let before = newest.replace((now, report.clone())).map(|(_, before)| before);
        Ok(news(before.as_ref(), &report))
    }
}

fn news(before: Option<&VolumeReport>, report: &VolumeReport) -> News {
    let Some(before) = before.filter(|before| before.store == report.store) else { return News::All };
    let new = report.broken.iter().filter(|root| !before.broken.contains(root));
    let caches: Vec<CacheKey> = new.map(|root| root.cache.clone()).collect();
    if caches.is_empty() { News::Nothing } else { News::Caches(caches) }
}

/// One request on a connection of its own: the mirror is inside the cluster and speaks plain HTTP.
async fn get(url: &Url) -> Result<Bytes, String> {
    let host = url.host_str().ok_or("the URL has no host")?;
    let authority = &url[url::Position::BeforeHost..url::Position::AfterPort];
    let port = url.port_or_known_default().unwrap_or(80);
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((bare, port)).await.map_err(|e| e.to_string())?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    let request = http::Request::get(url.path())
        .header(http::header::HOST, authority)
        .body(Empty::<Bytes>::new())
        .map_err(|e| e.to_string())?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
        if !response.status().is_success() {
            return Err(format!("it answered {}", response.status()));
        }
        let body = Limited::new(response.into_body(), MOST).collect().await;
        body.map(http_body_util::Collected::to_bytes).map_err(|e| e.to_string())
    };
    // The connection is driven here, so that it ends with this call.
    tokio::pin!(connection);
    tokio::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        _ = &mut connection => exchange.await,
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::model::volume::BrokenRoot;

    async fn serving(answer: &'static str) -> Mirror {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut asked = [0; 1024];
                let n = stream.read(&mut asked).await.unwrap();
                assert!(asked[..n].starts_with(b"GET /report HTTP/1.1"));
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        Mirror::new(Some(format!("http://{address}").parse().unwrap()))
    }

    #[tokio::test]
    async fn a_report_is_read_and_cut_down_to_one_cache() {
        let mirror = serving(
            "HTTP/1.1 200 OK\r\nContent-Length: 106\r\n\r\n\
             {\"store\":\"s1\",\"roots\":[],\"broken\":[{\"cache\":\"uid-a\",\"run\":3,\"reason\":\"x\"}],\"capacity\":1,\"free\":2,\"used\":3}",
        )
        .await;
        let now = Timestamp::from_second(1000).unwrap();
        assert_eq!(mirror.refresh(now).await.unwrap(), News::All);
        assert_eq!(mirror.refresh(now).await.unwrap(), News::Nothing);
        let key = |uid: &str| uid.parse::<CacheKey>().unwrap();
        assert_eq!(mirror.fact(&key("uid-a"), now).unwrap().broken, [3].into());
        assert!(mirror.fact(&key("uid-b"), now).unwrap().broken.is_empty());
        let later = Timestamp::from_second(2000).unwrap();
        assert_eq!(mirror.fact(&key("uid-a"), later), None, "an old report says nothing about the present");
    }

    #[tokio::test]
    async fn a_mirror_that_is_not_ready_tells_nothing() {
        let mirror = serving("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n").await;
        let error = mirror.refresh(Timestamp::UNIX_EPOCH).await.unwrap_err();
        assert!(error.to_string().contains("503"), "{error}");
    }

    #[test]
    fn only_what_broke_since_the_last_report_is_news() {
        let root = |run: &u64| BrokenRoot {
            cache: format!("c{run}").parse().unwrap(),
            run: *run,
            reason: String::new(),
        };
        let broken = |runs: &[u64]| VolumeReport {
            store: Some("s".into()),
            broken: runs.iter().map(root).collect(),
            ..VolumeReport::default()
        };
        let second = "c2".parse().unwrap();
        assert_eq!(news(Some(&broken(&[1])), &broken(&[1, 2])), News::Caches(vec![second]));
        assert_eq!(news(Some(&broken(&[1])), &broken(&[])), News::Nothing);
        assert_eq!(news(None, &broken(&[])), News::All);
    }
}
