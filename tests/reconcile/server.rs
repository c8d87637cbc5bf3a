//! A scripted API server: objects in memory by path, with the rules that matter here (already exists, conflicts on
//! resourceVersion and UID, an own clock), and a record of every request.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use http::{Method, Request, Response, StatusCode};
use kube::{Client, client::Body};
use serde_json::{Value, json};

#[derive(Clone)]
pub(crate) struct Server(Arc<Mutex<State>>);

pub(crate) struct State {
    pub(crate) objects: BTreeMap<String, Value>,
    /// `POST /apis/... name`, with the body that was sent.
    pub(crate) log: Vec<(String, Value)>,
    /// Of the newest request.
    query: String,
    /// The queries of lists of image caches.
    pub(crate) lists: Vec<String>,
    version: u64,
    /// What the `Date` header says.
    pub(crate) date: String,
    /// Requests that begin so are refused with this status.
    pub(crate) refuse: Option<(String, StatusCode)>,
    /// Requests that begin so are never answered.
    pub(crate) hang: Option<String>,
}

impl Server {
    pub(crate) fn start() -> (Self, Client) {
        let server = Self(Arc::new(Mutex::new(State {
            objects: BTreeMap::new(),
            log: Vec::new(),
            query: String::new(),
            lists: Vec::new(),
            version: 100,
            date: "Sat, 01 Jan 2000 00:00:00 GMT".to_owned(),
            refuse: None,
            hang: None,
        })));
        let (service, mut handle) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
        let answering = server.clone();
        tokio::spawn(async move {
            let mut unanswered = Vec::new();
            while let Some((request, reply)) = handle.next_request().await {
                let (head, body) = request.into_parts();
                let body = body.collect_bytes().await.unwrap();
                let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
                match answering.answer(
                    &head.method,
                    head.uri.path(),
                    head.uri.query().unwrap_or_default(),
                    body,
                ) {
                    Some(response) => reply.send_response(response),
                    None => unanswered.push(reply),
                }
            }
        });
        (server, Client::new(service, "default"))
    }

    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.0.lock().unwrap())
    }

    pub(crate) fn put(&self, path: &str, object: Value) -> Value {
        self.with(|state| state.store(path, object))
    }

    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.with(|state| state.objects.get(path).cloned())
    }

    /// Requests since the last call: method and the last two parts of the path.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.with(|state| state.log.drain(..).map(|(line, _)| line).collect())
    }

    fn answer(&self, method: &Method, path: &str, query: &str, body: Value) -> Option<Response<Body>> {
        self.with(|state| {
            let target = match (method, body.pointer("/metadata/name").and_then(Value::as_str)) {
                (&Method::POST, Some(name)) => format!("{path}/{name}"),
                _ => path.to_owned(),
            };
            let parts: Vec<&str> = target.rsplit('/').take(2).collect();
            let line = format!("{method} {}/{}", parts[1], parts[0]);
            state.log.push((line.clone(), body.clone()));
            query.clone_into(&mut state.query);
            if state.hang.as_ref().is_some_and(|hang| line.starts_with(hang)) {
                return None;
            }
            let (code, answer) = match &state.refuse {
                Some((refuse, code)) if line.starts_with(refuse) => (*code, Value::Null),
                _ => state.act(method, &target, body),
            };
            let answer = if code.is_success() { answer } else { failure(code, &answer) };
            let reply = Response::builder().status(code).header("Date", &state.date);
            let bytes = match answer {
                Value::String(log) => log.into_bytes(),
                json => serde_json::to_vec(&json).unwrap(),
            };
            Some(reply.body(Body::from(bytes)).unwrap())
        })
    }
}

impl State {
    fn store(&mut self, path: &str, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = json!(format!("uid-{}", self.version));
        }
        if object["metadata"]["creationTimestamp"].is_null() {
            object["metadata"]["creationTimestamp"] = json!(imagecache::ops::clock::now().to_string());
        }
        self.objects.insert(path.to_owned(), object.clone());
        object
    }

    fn act(&mut self, method: &Method, path: &str, body: Value) -> (StatusCode, Value) {
        let whole = path.trim_end_matches("/status");
        let there = self.objects.get(whole).cloned();
        let differs = |wanted: &Value, field: &str| {
            let is = there.as_ref().map(|there| &there["metadata"][field]);
            !wanted[field].is_null() && is != Some(&wanted[field])
        };
        match *method {
            Method::GET if ["/events", "/pods", "/imagecaches"].iter().any(|end| path.ends_with(end)) => {
                (StatusCode::OK, self.list(path))
            }
            Method::GET => {
                there.map_or((StatusCode::NOT_FOUND, Value::Null), |there| (StatusCode::OK, there))
            }
            Method::POST if there.is_some() => (StatusCode::CONFLICT, json!("AlreadyExists")),
            Method::POST => (StatusCode::CREATED, self.store(path, body)),
            _ if there.is_none() => (StatusCode::NOT_FOUND, Value::Null),
            Method::PUT | Method::PATCH
                if differs(&body["metadata"], "resourceVersion") || differs(&body["metadata"], "uid") =>
            {
                (StatusCode::CONFLICT, json!("Conflict"))
            }
            Method::PUT => (StatusCode::OK, self.store(whole, body)),
            Method::PATCH => {
                let mut next = there.clone().unwrap_or_default();
                next["status"] = body["status"].clone();
                (StatusCode::OK, self.store(whole, next))
            }
            Method::DELETE => {
                let wanted = &body["preconditions"];
                if differs(wanted, "resourceVersion") || differs(wanted, "uid") {
                    return (StatusCode::CONFLICT, json!("Conflict"));
                }
                self.objects.remove(whole);
                (StatusCode::OK, json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}))
            }
            _ => (StatusCode::METHOD_NOT_ALLOWED, Value::Null),
        }
    }
}

impl State {
    /// In pages, if they are asked for: the token is where the next one begins.
    fn list(&mut self, path: &str) -> Value {
        if path.ends_with("/imagecaches") {
            self.lists.push(self.query.clone());
        }
        let inside = |(at, _): &(&String, &Value)| {
            at.strip_prefix(&format!("{path}/")).is_some_and(|name| !name.contains('/'))
        };
        let all: Vec<&Value> = self.objects.iter().filter(inside).map(|(_, object)| object).collect();
        let number = |key: &str| {
            let mut values = self.query.split('&').filter_map(|pair| pair.strip_prefix(key));
            values.find_map(|value| value.trim_start_matches('=').parse::<usize>().ok())
        };
        let (from, limit) = (number("continue").unwrap_or(0), number("limit").unwrap_or(all.len()));
        let to = all.len().min(from + limit);
        let next = if to < all.len() { to.to_string() } else { String::new() };
        json!({"metadata": {"continue": next}, "items": all[from..to]})
    }
}

fn failure(code: StatusCode, reason: &Value) -> Value {
    let reason = reason.as_str().unwrap_or(match code {
        StatusCode::NOT_FOUND => "NotFound",
        StatusCode::FORBIDDEN => "Forbidden",
        StatusCode::CONFLICT => "Conflict",
        _ => "Other",
    });
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
           "message": "refused by the script", "reason": reason, "code": code.as_u16()})
}
