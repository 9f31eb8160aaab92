//! Tells a visitor what to do next.

use std::path::Path;

use crate::Failed;
use crate::broker::Home;
use crate::programs::{Esms, Worker, path};
use crate::support::terminal::{bold, dim, say};

/// For the time after the demonstration.
pub(crate) fn next() -> Result<(), Failed> {
    let sandbox = shown(&path("esms-sandbox")?);
    let worker = shown(&path("esms-otp-worker")?);
    say(format!("\n{}", bold("What to try next")));
    say(command("KEEP=1 make demo", "leaves it all running, to play with"));
    say(command("make test", "breaks brokers and networks, on purpose"));
    say(command(&format!("{sandbox} --help"), "every fault eSMS can be told to have"));
    say(command(&format!("{worker} run --help"), "every setting"));
    Ok(())
}

/// For the time while everything is left running.
pub(crate) fn invite(home: &Home, esms: &Esms, worker: &Worker) -> Result<(), Failed> {
    let (program, flags, sandbox) = (shown(&path("esms-otp-worker")?), home.flags(), esms.url());
    say(format!("\n{}", bold("All of it is running")));
    if home.is_private() {
        say(format!("  broker   amqp://guest:guest@{}/%2f, queue {}", home.address(), home.queue()));
    } else {
        say(format!("  broker   AMQP_URL as you gave it ({}), queue {}", home.address(), home.queue()));
    }
    say(format!("  eSMS     {}, pid {}", esms.send_url(), esms.pid()));
    say(format!("           {sandbox}/ is its page: what it is sent, and buttons for trouble"));
    say(format!("  worker   http://{}/metrics, pid {}", worker.http, worker.program.pid()));
    say(format!("           {}", worker.log.display()));
    say(format!("\n{}", bold("To play with, from another terminal")));
    for (line, what) in [
        (format!("{program} send {flags} \\\n    --phone 0901888484 --template 1234 --wait"), "one OTP"),
        (format!("curl -s {sandbox}/_sandbox/phones/0901888484"), "what eSMS saw of it"),
        (
            format!(
                "curl -s -H 'content-type: application/json' \\\n    \
                 -d '{{\"phone\": \"0901888484\", \"faults\": [\"reset_after\"]}}' \\\n    {sandbox}/_sandbox/script"
            ),
            "its next OTP is taken, and the answer lost",
        ),
        (format!("curl -s http://{}/metrics | grep ^otp_", worker.http), "the worker's counters"),
        (format!("kill -TERM {}", worker.program.pid()), "has the worker stop"),
    ] {
        say(format!("  {}\n  {line}", dim(&format!("# {what}"))));
    }
    say("\nCtrl-C ends it and removes everything.");
    Ok(())
}

fn command(line: &str, what: &str) -> String {
    format!("  {line:<36} {}", dim(&format!("# {what}")))
}

/// The path in its shortest form from the current directory.
fn shown(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(here).unwrap_or(path).display().to_string()
}
