//! `esms-sandbox`: plays the provider on loopback until a signal ends it.

use std::{
    io::{self, Write},
    net::SocketAddr,
    process::ExitCode,
    time::Duration,
};

use clap::{CommandFactory, Parser, error::ErrorKind};
use esms_otp_worker::sandbox::{
    DEFAULT_API_KEY, DEFAULT_BALANCE, DEFAULT_SECRET_KEY, DEFAULT_SEED, Mix, Sandbox, Settings, Share,
};
use tokio::signal::unix::{SignalKind, signal};

/// Exit code for a wrong setting.
const BAD_SETTING: u8 = 2;

const AFTER_HELP: &str = "\
Faults, each with its probability (what is left to 1 is no fault):
  accepted, then      reset_after  hang_after  hold  status_after:502
                      html_after  cut_json  empty_body  json_array
                      no_code_result  huge_body:16 (MiB)  slow_body:5s
                      latency:2s  code_number  null_fields
                      missing_fields  extra_fields  answer_status:203
                      byte_order_mark  many_headers:120  control_byte
                      space_before_colon  folded_header  gzip  deflate
                      until_close  long_length  open_end  cut_chunks
                      cut_chunk  trailing_comment  xml_unless_asked
                      proxy_lost (503)
  not accepted        reset_before  hang_before  status:503  html
                      status:429:1 (Retry-After: 1)  code:160
                      code:99:a message  echo_secrets  no_upstream (503)

Example: 50 ms to answer, one in fifty accepted and then reset, one in twenty
told to come back in a second:
  esms-sandbox --latency 50ms --fault reset_after=0.02 --fault status:429:1=0.05

While it runs, http://127.0.0.1:8081/ is a page of what was \"sent\",
with buttons for trouble. And:
  curl http://127.0.0.1:8081/_sandbox/stats
  curl http://127.0.0.1:8081/_sandbox/duplicates
  curl http://127.0.0.1:8081/_sandbox/phones/0901888484
  curl -H 'content-type: application/json' -d '{\"ms\": 5000}' \\
    http://127.0.0.1:8081/_sandbox/refuse";

/// Plays eSMS on loopback: the V5, CheckCode and balance calls, with faults on demand, and counts
/// what it accepted per phone.
#[derive(Parser)]
#[command(version, max_term_width = 80, after_help = AFTER_HELP)]
struct Args {
    /// Where to listen; loopback addresses only
    #[arg(long, env = "SANDBOX_ADDR", default_value = "127.0.0.1:8081", value_parser = loopback)]
    addr: SocketAddr,

    /// What faults, codes and SMSIDs are drawn by: the same seed, the same run
    #[arg(long, env = "SANDBOX_SEED", default_value_t = DEFAULT_SEED)]
    seed: u64,

    /// How long every V5 answer takes, e.g. 250ms
    #[arg(
        long,
        env = "SANDBOX_LATENCY",
        default_value = "0s",
        value_name = "DURATION",
        value_parser = humantime::parse_duration
    )]
    latency: Duration,

    /// How much longer it takes at most
    #[arg(
        long,
        env = "SANDBOX_JITTER",
        default_value = "0s",
        value_name = "DURATION",
        value_parser = humantime::parse_duration
    )]
    jitter: Duration,

    /// The ApiKey to accept
    #[arg(long, env = "SANDBOX_API_KEY", default_value = DEFAULT_API_KEY, hide_env_values = true)]
    api_key: String,

    /// The SecretKey to accept
    #[arg(
        long,
        env = "SANDBOX_SECRET_KEY",
        default_value = DEFAULT_SECRET_KEY,
        hide_env_values = true
    )]
    secret_key: String,

    /// What is on the account, in VND; a message takes 850
    #[arg(long, env = "SANDBOX_BALANCE", default_value_t = DEFAULT_BALANCE, value_name = "VND")]
    balance: u64,

    /// A fault and how often it comes; repeat it, or separate with commas
    #[arg(long = "fault", env = "SANDBOX_FAULTS", value_name = "FAULT=PROBABILITY", value_delimiter = ',')]
    faults: Vec<Share>,
}

impl Args {
    fn settings(self) -> Result<Settings, clap::Error> {
        let mix = Mix::new(self.faults.into_iter().map(|Share(fault, share)| (fault, share)))
            .map_err(|error| Self::command().error(ErrorKind::ValueValidation, error))?;
        Ok(Settings {
            addr: self.addr,
            seed: self.seed,
            latency: self.latency,
            jitter: self.jitter,
            api_key: self.api_key,
            secret_key: self.secret_key,
            balance: self.balance,
            mix,
        })
    }
}

fn loopback(text: &str) -> Result<SocketAddr, String> {
    let addr: SocketAddr = text.parse().map_err(|_| "write it as 127.0.0.1:8081".to_owned())?;
    if addr.ip().is_loopback() { Ok(addr) } else { Err("not a loopback address".to_owned()) }
}

#[tokio::main]
async fn main() -> ExitCode {
    let settings = match Args::try_parse().and_then(Args::settings) {
        Ok(settings) => settings,
        Err(error) => return explain(&error),
    };
    let addr = settings.addr;
    match run(settings).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&mut io::stderr(), &format!("error: cannot listen on {addr}: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Prints the help if it was asked for. For a mistake, prints only the line that names it.
fn explain(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        // If standard output is closed, the reader of the help is gone.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let text = error.to_string();
    say(&mut io::stderr(), text.lines().next().unwrap_or_default());
    ExitCode::from(BAD_SETTING)
}

/// Plays until SIGTERM (from an orchestrator) or SIGINT (from a terminal).
async fn run(settings: Settings) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let sandbox = Sandbox::start(settings).await?;
    let (send_url, url) = (sandbox.send_url(), sandbox.url());
    say(&mut io::stdout(), &format!("eSMS is played at {send_url}; what it is sent is shown at {url}/"));
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    sandbox.shutdown().await;
    Ok(())
}

/// Writes a line. Ignores errors: the reader may be gone.
fn say(to: &mut impl Write, line: &str) {
    let _ = writeln!(to, "{line}").and_then(|()| to.flush());
}
