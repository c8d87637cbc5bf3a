//! A scripted Alibaba Cloud: STS and ACR on one plain HTTP port of 127.0.0.1. It checks what the real ones check
//! (signature, nonce, clock, session token, trust, policy) and refuses with their documented errors. Use it with
//! `#[path = "support/acr/mod.rs"] mod cloud;`.
// Each test binary uses its own part; a failed unwrap is a failed test.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

mod api;
mod signature;

use std::{
    collections::{HashMap, HashSet},
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;

/// Who may use an access key.
#[derive(Clone)]
pub(crate) struct Key {
    pub secret: String,
    /// Of temporary keys.
    pub token: Option<String>,
    /// A role's ARN, or a user's name.
    pub who: String,
    /// The policy of the session, which cuts down what the role may do.
    pub policy: Option<Value>,
}

pub struct Role {
    /// Who may assume it: users, roles, or `system:serviceaccount:...`.
    pub trusts: Vec<&'static str>,
    /// Instances it may look at and pull from; `personal` for the Personal Edition.
    pub instances: Vec<&'static str>,
}

pub struct Instance {
    pub region: &'static str,
    pub name: &'static str,
    pub domains: Vec<String>,
}

#[derive(Default)]
pub(crate) struct State {
    pub keys: HashMap<String, Key>,
    pub roles: HashMap<&'static str, Role>,
    pub instances: HashMap<&'static str, Instance>,
    /// Token and subject of the service account.
    pub oidc: Option<(String, &'static str)>,
    pub nonces: HashSet<String>,
    /// Seconds that the clock here is ahead.
    pub ahead: i64,
    /// Seconds that a login lives.
    pub life: i64,
    /// Answers instead of the next ones, with this status and body.
    pub broken: Option<(u16, &'static str)>,
    pub log: Vec<String>,
    /// User and password of every login that was given.
    pub issued: Vec<(String, String)>,
    pub count: u32,
}

#[derive(Clone)]
pub struct Cloud {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Cloud {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let state = State { life: 3600, ..State::default() };
        let cloud = Self { address: listener.local_addr().unwrap(), state: Arc::new(Mutex::new(state)) };
        let serving = cloud.clone();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let cloud = serving.clone();
                let service = service_fn(move |request| handle(request, cloud.clone()));
                tokio::spawn(async move {
                    let http = hyper::server::conn::http1::Builder::new();
                    drop(http.serve_connection(TokioIo::new(tcp), service).await);
                });
            }
        });
        cloud
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A user with a long-lived access key.
    pub fn user(&self, name: &str, id: &str, secret: &str) {
        let key = Key { secret: secret.into(), token: None, who: name.into(), policy: None };
        self.lock().keys.insert(id.into(), key);
    }

    pub fn service_account(&self, token: &str, subject: &'static str) {
        self.lock().oidc = Some((token.into(), subject));
    }

    pub fn role(&self, arn: &'static str, trusts: &[&'static str], instances: &[&'static str]) {
        let role = Role { trusts: trusts.to_vec(), instances: instances.to_vec() };
        self.lock().roles.insert(arn, role);
    }

    pub fn instance(&self, id: &'static str, region: &'static str, name: &'static str, domains: &[&str]) {
        let domains = domains.iter().map(|&domain| domain.to_owned()).collect();
        self.lock().instances.insert(id, Instance { region, name, domains });
    }

    pub fn set_ahead(&self, seconds: i64) {
        self.lock().ahead = seconds;
    }

    pub fn set_life(&self, seconds: i64) {
        self.lock().life = seconds;
    }

    /// All answers are this one, until `None`.
    pub fn break_with(&self, answer: Option<(u16, &'static str)>) {
        self.lock().broken = answer;
    }

    /// The operations that were asked for, since the last call.
    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().log)
    }

    pub fn issued(&self) -> Vec<(String, String)> {
        self.lock().issued.clone()
    }

    /// Everything secret that this gave away or accepts, logins not counted.
    pub fn secrets(&self) -> Vec<String> {
        let state = self.lock();
        let of = |key: &Key| [Some(key.secret.clone()), key.token.clone()].into_iter().flatten();
        let oidc = state.oidc.iter().map(|(token, _)| token.clone());
        state.keys.values().flat_map(of).chain(oidc).collect()
    }

    /// The policies of all sessions, in no order: who has it, and what it allows.
    pub fn policies(&self) -> Vec<(String, Option<Value>)> {
        let state = self.lock();
        let sessions = state.keys.values().filter(|key| key.token.is_some());
        sessions.map(|key| (key.who.clone(), key.policy.clone())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

/// One request, read whole.
pub(crate) struct Asked {
    pub method: String,
    pub path: String,
    pub query: HashMap<String, String>,
    pub form: HashMap<String, String>,
    pub headers: HashMap<String, String>,
}

async fn handle(request: Request<Incoming>, cloud: Cloud) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let words = |text: &[u8]| url::form_urlencoded::parse(text).into_owned().collect();
    let text = |value: &http::HeaderValue| value.to_str().unwrap_or_default().to_owned();
    let asked = Asked {
        method: parts.method.to_string(),
        path: parts.uri.path().to_owned(),
        query: words(parts.uri.query().unwrap_or_default().as_bytes()),
        form: words(&body),
        headers: parts.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
    };
    let (status, answer) = {
        let mut state = cloud.lock();
        if let Some((status, body)) = state.broken {
            (status, body.to_owned())
        } else {
            let (status, json) = api::answer(&mut state, &asked);
            (status, json.to_string())
        }
    };
    let mut response = Response::new(Full::new(Bytes::from(answer)));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    Ok(response)
}
