//! A test cluster (tests/cluster/README.md), and kubectl. By an environment variable an own one is used, which then
//! goes on running: good while a test is written.

use std::{
    env, fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use super::guard::Guard;

/// Longer than anything takes on a slow machine. A test that waits this long has failed.
const DEADLINE: Duration = Duration::from_mins(8);

pub struct Cluster {
    pub dir: PathBuf,
    program: PathBuf,
    /// Takes it down when the tests are over.
    _end: Option<Guard>,
}

/// What a command said.
#[derive(Debug)]
pub struct Answer {
    pub ok: bool,
    pub out: String,
    pub err: String,
}

impl Cluster {
    /// Starts a cluster, or takes the one whose folder the variable holds. `level` is `api` or `node`.
    pub fn start(level: &str, variable: &str) -> Self {
        let build = command(&mut Command::new(root().join("tests/cluster/build.sh"))).succeeded("build.sh");
        let program = Path::new(build.lines().last().unwrap()).join("cluster");
        if let Some(dir) = env::var_os(variable) {
            return Self { dir: dir.into(), program, _end: None };
        }
        let dir = tempfile::Builder::new().prefix("imagecache-test-").tempdir().unwrap().keep();
        let end = Guard::at_the_end(r#""$1" down "$2" && rm -rf "$2""#, &program, &[dir.to_str().unwrap()]);
        command(Command::new(&program).arg("up").arg(&dir).args(["--level", level])).succeeded("cluster up");
        Self { dir, program, _end: Some(end) }
    }

    /// The line that a file of the cluster's folder holds.
    pub fn fact(&self, name: &str) -> String {
        fs::read_to_string(self.dir.join(name)).unwrap().trim().to_owned()
    }

    /// `cluster WHAT DIR ARG...`
    pub fn cluster(&self, what: &str, arguments: &[&str]) -> Answer {
        command(Command::new(&self.program).arg(what).arg(&self.dir).args(arguments))
    }

    pub fn kubectl(&self, arguments: &[&str]) -> Answer {
        self.cluster("kubectl", arguments)
    }

    /// kubectl that has to succeed.
    pub fn run(&self, arguments: &[&str]) -> String {
        self.kubectl(arguments).succeeded(&arguments.join(" "))
    }

    /// One object, or None if it is not there.
    pub fn get(&self, arguments: &[&str]) -> Option<Value> {
        let mut all = vec!["get", "-o", "json", "--ignore-not-found"];
        all.extend(arguments);
        let answer = self.run(&all);
        (!answer.trim().is_empty()).then(|| serde_json::from_str(&answer).unwrap())
    }

    pub fn list(&self, arguments: &[&str]) -> Vec<Value> {
        let mut list = self.get(arguments).unwrap_or_default();
        list.get_mut("items").map(Value::take).and_then(|items| items.as_array().cloned()).unwrap_or_default()
    }

    /// kubectl with an object on its standard input: `["apply"]`, `["create", "--as=eve"]`.
    pub fn send(&self, object: &Value, arguments: &[&str]) -> Answer {
        self.send_text(&object.to_string(), arguments)
    }

    pub fn send_text(&self, manifest: &str, arguments: &[&str]) -> Answer {
        let mut child = Command::new(&self.program)
            .arg("kubectl")
            .arg(&self.dir)
            .args(arguments)
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(manifest.as_bytes()).unwrap();
        answer(&child.wait_with_output().unwrap())
    }

    /// A program that runs for as long as the guard lives, `kubectl get --watch` for example.
    pub fn follow(&self, arguments: &[&str]) -> Guard {
        let mut all = vec!["kubectl", self.dir.to_str().unwrap()];
        all.extend(arguments);
        Guard::process(&self.program, &all, Stdio::piped())
    }
}

impl Answer {
    /// Its standard output; a failure ends the test with what was said.
    pub fn succeeded(self, what: &str) -> String {
        assert!(self.ok, "{what}: {}{}", self.out, self.err);
        self.out
    }

    /// What was said when it was refused.
    pub fn refused(self) -> String {
        assert!(!self.ok, "this should have been refused: {}", self.out);
        self.err
    }
}

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn command(command: &mut Command) -> Answer {
    let output = command.stdin(Stdio::null()).output();
    answer(&output.unwrap_or_else(|error| panic!("{}: {error}", command.get_program().display())))
}

fn answer(output: &Output) -> Answer {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Answer { ok: output.status.success(), out: text(&output.stdout), err: text(&output.stderr) }
}

/// Looks again and again until there is something to see.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < end, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(200));
    }
}
