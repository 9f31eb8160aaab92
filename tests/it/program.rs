//! The program as a command that ends: what it prints and how it ends.

use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

use crate::stage::{LIMIT, PROGRAM};

/// A command that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The exit code, or -1 when a signal ended it.
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// The program with these arguments. Its environment has PATH and these variables, and no others.
pub(crate) fn command(args: &[&str], env: &[(&str, &str)]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(args).env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    command.envs(env.iter().copied()).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs it to its end, with nothing on standard input.
pub(crate) async fn run(args: &[&str], env: &[(&str, &str)]) -> Ended {
    run_with_input(args, env, "").await
}

/// Runs it to its end.
///
/// # Panics
///
/// When it takes too long.
pub(crate) async fn run_with_input(args: &[&str], env: &[(&str, &str)], input: &str) -> Ended {
    let mut child = command(args, env).spawn().expect(PROGRAM);
    let mut stdin = child.stdin.take().expect("a piped input");
    // A program that does not read its input closes it. That is not a failure of the test.
    let feeding = async move { stdin.write_all(input.as_bytes()).await.ok() };
    let (_, output) = timeout(LIMIT, async { tokio::join!(feeding, child.wait_with_output()) })
        .await
        .unwrap_or_else(|_| panic!("{args:?} did not end within {LIMIT:?}"));
    let output = output.expect("a child to wait for");
    Ended {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).expect("UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("UTF-8"),
    }
}

/// A pseudo-terminal: our end, and the program's.
pub(crate) fn terminal() -> (std::fs::File, std::fs::File) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&ours).expect("a terminal");
    unlockpt(&ours).expect("a terminal");
    let name = ptsname(&ours, Vec::new()).expect("its name");
    let theirs = std::fs::File::options().read(true).write(true).open(name.to_str().expect("a path")).expect("its end");
    (ours.into(), theirs)
}
