//! One row of the matrix: what the registry does, and what has to come of it.

use bytes::Bytes;
use imagecache::model::class::Class;

use super::{
    content::Content,
    server::{Opening, Rule, Step},
};

#[derive(Clone)]
pub struct Row {
    pub name: &'static str,
    /// Class, and what the message has to hold. `None`: it ends well, with the right bytes.
    pub fails: Option<(Class, &'static str)>,
    pub rules: Vec<Rule>,
    /// Rules of the other host.
    pub other: Vec<Rule>,
    pub content: Content,
    pub challenge: Option<&'static str>,
    pub opening: Opening,
    /// Whether the registry is asked for over HTTPS.
    pub https: bool,
    /// Limits short enough to wait for.
    pub slow: bool,
    /// Only the worker can tell: the client leaves it to its caller.
    pub worker_only: bool,
}

/// It ends well.
pub fn fine(name: &'static str) -> Row {
    Row {
        name,
        fails: None,
        rules: Vec::new(),
        other: Vec::new(),
        content: Content::honest(),
        challenge: Some(r#"Basic realm="registry""#),
        opening: Opening::Plain,
        https: false,
        slow: false,
        worker_only: false,
    }
}

pub fn fails(name: &'static str, class: Class, says: &'static str) -> Row {
    Row { fails: Some((class, says)), ..fine(name) }
}

impl Row {
    /// Every request whose `METHOD path` contains `part` is answered so.
    pub fn on(self, part: &str, steps: Vec<Step>) -> Self {
        self.times(usize::MAX, part, steps)
    }

    pub fn once(self, part: &str, steps: Vec<Step>) -> Self {
        self.times(1, part, steps)
    }

    pub fn times(mut self, times: usize, part: &str, steps: Vec<Step>) -> Self {
        self.rules.push(Rule { part: part.to_owned(), times, steps });
        self
    }

    /// What the other host answers to requests that hold `part`.
    pub fn there(mut self, part: &str, steps: Vec<Step>) -> Self {
        self.other.push(Rule { part: part.to_owned(), times: usize::MAX, steps });
        self
    }

    pub fn document(mut self, media_type: &str, bytes: impl Into<Bytes>) -> Self {
        self.content.tag(media_type, bytes);
        self
    }

    pub fn challenge(self, challenge: &'static str) -> Self {
        Self { challenge: Some(challenge), ..self }
    }

    pub fn tls(self) -> Self {
        Self { opening: Opening::Tls, https: true, ..self }
    }

    pub fn opening(self, opening: Opening, https: bool) -> Self {
        Self { opening, https, ..self }
    }

    pub fn slow(self) -> Self {
        Self { slow: true, ..self }
    }

    pub fn worker(self) -> Self {
        Self { worker_only: true, ..self }
    }
}

/// A status, headers of one line each, a body with its length.
pub fn says(status: &str, headers: &[&str], body: impl Into<Bytes>) -> Vec<Step> {
    let body = body.into();
    let length = format!("Content-Length: {}", body.len());
    raw(status, &[headers, &[length.as_str()]].concat(), body)
}

/// The same without any length.
pub fn raw(status: &str, headers: &[&str], body: impl Into<Bytes>) -> Vec<Step> {
    let lines = headers.iter().flat_map(|line| [*line, "\r\n"]).collect::<String>();
    vec![Step::Head(format!("HTTP/1.1 {status}\r\n{lines}\r\n")), Step::Send(body.into())]
}

/// A head, then a body without end.
pub fn endless(status: &str, headers: &[&str]) -> Vec<Step> {
    let mut steps = raw(status, headers, "");
    steps.push(Step::Endless(Bytes::from(vec![b'x'; 16 << 10])));
    steps
}

pub fn redirect(to: &str) -> Vec<Step> {
    says("307 Temporary Redirect", &[&format!("Location: {to}")], "")
}

/// The connection is closed after these bytes.
pub fn only(bytes: impl Into<Bytes>) -> Vec<Step> {
    vec![Step::Send(bytes.into())]
}
