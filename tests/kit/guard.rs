//! Nothing outlives the tests. A test binary has no last line to clean up in, and may be killed: so a shell waits for
//! the end of a pipe that only this process holds, and then ends what was started.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
};

/// Ends its process when it is dropped, or when this process ends in whatever way.
pub struct Guard(Child);

impl Guard {
    /// A program that is to run until then. Its output goes where the command says.
    pub fn process(program: &Path, arguments: &[&str], output: Stdio) -> Self {
        Self::process_with(program, arguments, output, |_| {})
    }

    pub fn process_with(
        program: &Path,
        arguments: &[&str],
        output: Stdio,
        more: impl FnOnce(&mut Command),
    ) -> Self {
        let script = r#""$@" & child=$!; read -r _; kill $child; wait $child"#;
        let mut shell = shell(script, program, arguments);
        more(shell.stdout(output));
        Self(shell.spawn().unwrap())
    }

    /// A command that is to run at the end.
    pub fn at_the_end(script: &str, program: &Path, arguments: &[&str]) -> Self {
        Self(shell(&format!("read -r _; {script}"), program, arguments).spawn().unwrap())
    }

    /// What the process prints, if its output was piped.
    pub fn output(&mut self) -> Option<std::process::ChildStdout> {
        self.0.stdout.take()
    }
}

/// `$@` of the script is the program and its arguments. A group of its own keeps an interrupt at the terminal away
/// from the shell, which then does its work.
fn shell(script: &str, program: &Path, arguments: &[&str]) -> Command {
    use std::os::unix::process::CommandExt as _;
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", script, "guard"]).arg(program).args(arguments);
    shell.stdin(Stdio::piped()).process_group(0);
    shell
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}
