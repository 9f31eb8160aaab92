//! Access to the store: with TLS, as a user, in a database. Also what the worker says when it is refused.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;

use super::{HOLD, key, shared, told};
use crate::program::run_with_input;
use crate::stage::{LIMIT, PHONE, Stage, ending};
use crate::support::client::Job;
use crate::support::ports;
use crate::support::redis::Redis;
use crate::support::wait::until;

const PASSWORD: &str = "canary/pass+word";
const PASSWORD_IN_URL: &str = "canary%2Fpass+word";

/// The keys that are enough: those with the prefix of the stage.
const PERMITTED: &str = "~otp-test:*";

/// The commands that are enough, according to docs/ledger.md.
const COMMANDS: [&str; 8] = ["+evalsha", "+script|load", "+hmget", "+hset", "+del", "+pexpire", "+time", "+select"];

/// Those that limits need, too.
const OF_LIMITS: [&str; 13] = [
    "+zadd",
    "+zrem",
    "+zscore",
    "+zcard",
    "+zrange",
    "+zrevrange",
    "+zrangebyscore",
    "+zremrangebyscore",
    "+zremrangebyrank",
    "+hgetall",
    "+hdel",
    "+hincrby",
    "+pttl",
];

/// Adds a Redis user who may touch only the records of jobs, and only with these commands.
async fn add_user(redis: &Redis) {
    let password = format!(">{PASSWORD}");
    let mut command = vec!["ACL", "SETUSER", "worker", "on", &password, PERMITTED];
    command.extend(COMMANDS);
    redis.cli(&command).await;
}

/// The same for a worker that counts.
async fn add_user_who_counts(redis: &Redis) {
    add_user(redis).await;
    let mut command = vec!["ACL", "SETUSER", "worker"];
    command.extend(OF_LIMITS);
    assert_eq!(redis.cli(&command).await, "OK");
}

/// A private authority, and a server's certificate for `localhost` from it, as files.
struct Certificates(TempDir);

impl Certificates {
    fn make() -> Self {
        let files = tempfile::tempdir().expect("a directory");
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().expect("a key")).expect("an authority");
        let key = KeyPair::generate().expect("a key");
        let leaf = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        let leaf = leaf.signed_by(&key, &ca).expect("a certificate");
        let made = Self(files);
        for (name, pem) in [("ca", ca.as_ref().pem()), ("server", leaf.pem()), ("key", key.serialize_pem())] {
            std::fs::write(made.path(name), pem).expect("a file");
        }
        made
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().expect("a path that is text").to_owned()
    }
}

/// Makes the server listen with TLS too. Returns the port.
async fn listen_with_tls(redis: &Redis, certificates: &Certificates) -> u16 {
    let (server, key) = (certificates.text("server"), certificates.text("key"));
    // Redis sets up TLS only when it has a port for it, so each of these may be set alone.
    for (name, value) in [("tls-auth-clients", "no"), ("tls-key-file", &key), ("tls-cert-file", &server)] {
        assert_eq!(redis.cli(&["CONFIG", "SET", name, value]).await, "OK");
    }
    let port = ports::free_block(1);
    assert_eq!(redis.cli(&["CONFIG", "SET", "tls-port", &port.to_string()]).await, "OK");
    port
}

/// Checks that a worker with this ledger address processes a job, and that its record is in that database.
async fn works(stage: &mut Stage, redis: &Redis, url: &str, database: &str) {
    stage.set("OTP_LEDGER_URL", url);
    let mut running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    let id = uuid::Uuid::new_v4().to_string();
    client.publish(&stage.names.jobs, Job::for_phone(PHONE, &id)).await;
    assert_eq!(ending(&results.next(LIMIT).await), told("accepted", 1, false));
    assert_eq!(redis.cli(&["-n", database, "HGET", &key(&id), "state"]).await, "done", "{url}");
    assert_eq!(running.metric("otp_ledger_errors_total", &[]).await, 0.0);
    assert_eq!(running.stop().await, Some(0));
    assert!(running.process.log_containing("canary").is_empty());
}

#[tokio::test]
async fn a_user_with_a_password_and_a_database_of_its_own_is_enough() {
    let (mut stage, redis) = shared().await;
    add_user(&redis).await;
    let port = redis.port();
    works(&mut stage, &redis, &format!("redis://worker:{PASSWORD_IN_URL}@localhost:{port}/5"), "5").await;
    works(&mut stage, &redis, &format!("redis://127.0.0.1:{port}"), "0").await;
}

#[tokio::test]
async fn for_limits_the_same_user_needs_the_commands_that_the_readme_names_and_no_more() {
    let (mut stage, redis) = shared().await;
    for (name, value) in [
        ("OTP_PHONE_LIMIT", "2/1h,5/2h"),
        ("OTP_PREFIX_LIMIT", "84:4/1s,84:5/1h"),
        ("OTP_TOTAL_LIMIT", "100/24h"),
        ("OTP_JOB_TTL", "1h"),
    ] {
        stage.set(name, value);
    }
    add_user(&redis).await;
    let url = format!("redis://worker:{PASSWORD_IN_URL}@localhost:{}/5", redis.port());
    stage.set("OTP_LEDGER_URL", &url);
    let check = async || run_with_input(&["check"], &stage.env(), "").await.stdout;
    let checked = check().await;
    assert!(checked.contains("ledger       FAILED") && checked.contains("docs/ledger.md"), "{checked}");
    add_user_who_counts(&redis).await;
    let checked = check().await;
    assert!(!checked.contains("ledger       FAILED") && !checked.contains("NOPERM"), "{checked}");
    assert_eq!(redis.cli(&["-n", "5", "--scan", "--pattern", "*number:check*"]).await, "");
    redis.cli(&["ACL", "LOG", "RESET"]).await;
    works(&mut stage, &redis, &url, "5").await;
    let running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    let mut send = async |id: &str| {
        client.publish(&stage.names.jobs, Job::for_phone(PHONE, id)).await;
        ending(&results.next(LIMIT).await).0
    };
    assert_eq!(send("second").await, "accepted");
    assert_eq!(send("third").await, "limited");
    for (args, said) in
        [(&["limits"][..], "2 of 2"), (&["limits", "reset"], "forgotten    2 OTPs"), (&["limits"], "next OTP     now")]
    {
        let ended = run_with_input(args, &stage.env(), PHONE).await;
        assert!(ended.code == 0 && ended.stdout.contains(said), "{args:?}: {ended:?}");
    }
    assert_eq!(send("fourth").await, "accepted");
    assert_eq!(running.metric("otp_ledger_errors_total", &[]).await, 0.0);
    let log = redis.cli(&["ACL", "LOG"]).await;
    assert!(log.is_empty(), "a command is refused: {log}");
}

/// Every command of the scripts is in the lists above, and in docs/ledger.md. A step that is rare cannot be forgotten so.
#[test]
fn no_script_calls_a_command_that_is_not_listed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut called = BTreeSet::new();
    for file in std::fs::read_dir(root.join("src/ledger")).expect("a folder").flatten().map(|entry| entry.path()) {
        if file.extension().is_some_and(|kind| kind == "lua") {
            let text = std::fs::read_to_string(&file).expect("a script").replace("redis.pcall('", "redis.call('");
            called.extend(
                text.split("redis.call('").skip(1).filter_map(|rest| rest.split('\'').next()).map(str::to_owned),
            );
        }
    }
    let listed = COMMANDS.iter().chain(&OF_LIMITS).map(|command| command[1..].to_uppercase());
    let listed: BTreeSet<String> = listed.collect();
    let tried = std::fs::read_to_string(root.join("src/ledger/try_limits.lua")).expect("a script");
    for command in OF_LIMITS.map(|command| command[1..].to_uppercase()) {
        assert!(tried.contains(&format!("'{command}'")), "check does not try {command}");
    }
    assert!(called.len() > 10 && called.is_subset(&listed), "{:?}", called.difference(&listed));
    let document = std::fs::read_to_string(root.join("docs/ledger.md")).expect("docs/ledger.md");
    for command in listed {
        let name = format!("`{}`", command.replace('|', " "));
        assert!(document.contains(&name), "{name} is not in docs/ledger.md");
    }
}

#[tokio::test]
async fn with_rediss_a_server_is_trusted_whose_authority_is_and_no_other() {
    let (mut stage, redis) = shared().await;
    add_user(&redis).await;
    let certificates = Certificates::make();
    let port = listen_with_tls(&redis, &certificates).await;
    let url = format!("rediss://worker:{PASSWORD_IN_URL}@localhost:{port}/2");
    for setting in ["SSL_CERT_FILE", "OTP_LEDGER_CA_FILE"] {
        stage.set(setting, &certificates.text("ca"));
        works(&mut stage, &redis, &url, "2").await;
        stage.unset(setting);
    }

    for (host, trusted) in [("localhost", Certificates::make()), ("127.0.0.1", certificates)] {
        stage.set("OTP_LEDGER_CA_FILE", &trusted.text("ca"));
        let url = format!("rediss://worker:{PASSWORD_IN_URL}@{host}:{port}/2");
        stage.set("OTP_LEDGER_URL", &url).set("OTP_LEDGER_ON_ERROR", "hold");
        let running = stage.worker().await;
        stage.client().await.publish(&stage.names.jobs, Job::for_phone(PHONE, "distrusted")).await;
        let line = running.process.wait_for_log("the ledger does not answer", LIMIT).await;
        assert!(line.contains("certificate"), "{line}");
        assert!(running.process.log_containing("canary").is_empty());
    }
    assert_eq!(stage.sandbox.stats().requests, 2);
}

#[tokio::test]
async fn a_wrong_password_is_said_without_it_and_the_worker_goes_on_once_it_is_right() {
    let (mut stage, redis) = shared().await;
    for (name, value) in HOLD {
        stage.set(name, value);
    }
    let url = format!("redis://worker:{PASSWORD_IN_URL}@localhost:{}/0", redis.port());
    stage.set("OTP_LEDGER_URL", &url);
    let running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    client.publish(&stage.names.jobs, Job::for_phone(PHONE, "a-job")).await;
    let line = running.process.wait_for_log("the ledger does not answer", LIMIT).await;
    assert!(line.contains("WRONGPASS") && line.contains("the password in OTP_LEDGER_URL"), "{line}");
    until("it has tried again", LIMIT, async || running.metric("otp_ledger_errors_total", &[]).await > 3.0).await;
    assert_eq!(stage.sandbox.stats().requests, 0);
    add_user(&redis).await;
    assert_eq!(ending(&results.next(LIMIT).await), told("accepted", 1, false));
    assert!(running.process.log_containing("canary").is_empty());
    running.until_settled(&stage.names).await;
}

#[tokio::test]
async fn a_password_that_is_rotated_in_its_file_is_used_at_the_next_connection_without_a_restart() {
    let (mut stage, redis) = shared().await;
    add_user(&redis).await;
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("url");
    let url = |password: &str| format!("redis://worker:{password}@localhost:{}/0", redis.port());
    let write = |text: &str| std::fs::write(&path, text).expect("a file");
    write(&url(PASSWORD_IN_URL));
    stage.unset("OTP_LEDGER_URL").set("OTP_LEDGER_URL_FILE", path.to_str().expect("a path that is text"));
    let running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    let rotate = async |password: &str| {
        redis.cli(&["ACL", "SETUSER", "worker", "resetpass", &format!(">{password}")]).await;
        redis.cli(&["CLIENT", "KILL", "USER", "worker"]).await;
    };
    for (n, (file, password)) in [
        ("".to_owned(), PASSWORD),
        (url("canary-new") + "\n", "canary-new"),
        (url("canary-newer")[..30].to_owned(), "canary-new"),
    ]
    .into_iter()
    .enumerate()
    {
        write(&file);
        rotate(password).await;
        let id = format!("job-{n}");
        client.publish(&stage.names.jobs, Job::for_phone(PHONE, &id)).await;
        assert_eq!(ending(&results.next(LIMIT).await), told("accepted", 1, false));
        assert_eq!(redis.cli(&["HGET", &key(&id), "state"]).await, "done", "{id}");
    }
    running.process.wait_for_log("a secret's file cannot be used", LIMIT).await;
    assert_eq!(running.metric("otp_ledger_errors_total", &[]).await, 0.0);
    assert!(running.process.log_containing("canary").is_empty());
    running.until_settled(&stage.names).await;
}
