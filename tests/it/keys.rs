//! Secrets that are rotated while the program runs.

use std::collections::BTreeMap;
use std::path::Path;

use esms_otp_worker::config::Config;
use esms_otp_worker::esms::balance::BalanceError;
use esms_otp_worker::esms::client::Esms;
use esms_otp_worker::sandbox::{Sandbox, Settings};

use crate::broker_failures::allow;
use crate::stage::{LIMIT, PHONE, Stage, ending};
use crate::support::broker::Broker;
use crate::support::client::Job;
use crate::support::redis::Redis;

fn config(url: &str, directory: &Path) -> Config {
    let file = |name: &str| directory.join(name).to_str().unwrap().to_owned();
    let given = BTreeMap::from([
        ("ESMS_URL", url.to_owned()),
        ("ESMS_API_KEY_FILE", file("api")),
        ("ESMS_SECRET_KEY_FILE", file("secret")),
    ]);
    Config::read(&|setting| given.get(setting.env).cloned()).unwrap()
}

#[tokio::test]
async fn esms_takes_the_new_keys_without_a_restart() {
    let sandbox = Sandbox::start(Settings::default()).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    write("api", "an-old-api-key");
    write("secret", "an-old-secret-key");
    let config = config(&sandbox.send_url(), directory.path());
    let esms = Esms::new(&config.esms, 1).unwrap();
    assert!(matches!(esms.balance().await, Err(BalanceError::Refused { code: "101", .. })));

    write("api", "sandbox-key\n");
    // Half of it is written.
    write("secret", "sandb");
    config.esms.keys.read_again().await;
    config.esms.keys.read_again().await;
    assert!(esms.balance().await.is_err());

    write("secret", "\u{feff}sandbox-secret\r\n");
    config.esms.keys.read_again().await;
    config.esms.keys.read_again().await;
    assert!(esms.balance().await.is_ok());
    let said = esms.without_credentials("an-old-api-key sandbox-secret an-old-secret-key sandbox-key");
    assert_eq!(said, "[removed] [removed] [removed] [removed]");
}

/// The user of the broker and of Redis in the test below.
const USER: &str = "rotates-everything";

/// The four files that hold a worker's secrets.
struct Files(tempfile::TempDir);

impl Files {
    const NAMES: [&'static str; 4] =
        ["AMQP_URL_FILE", "OTP_LEDGER_URL_FILE", "ESMS_API_KEY_FILE", "ESMS_SECRET_KEY_FILE"];

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().expect("a path that is text").to_owned()
    }

    /// What the secrets are when `password` is that of the broker and of Redis, and part of eSMS's keys.
    fn write(&self, redis: &Redis, broker: &Broker, password: &str) {
        let amqp = format!("amqp://{USER}:{password}@127.0.0.1:{}", broker.port());
        let ledger = format!("redis://{USER}:{password}@127.0.0.1:{}/0", redis.port());
        let keys = [format!("{password}-api"), format!("{password}-secret")];
        for (name, text) in Self::NAMES.into_iter().zip([amqp, ledger].into_iter().chain(keys)) {
            std::fs::write(self.path(name), text + "\n").expect("written");
        }
    }
}

/// The broker and Redis take this password from now on, and end every connection that was made with another.
async fn change_passwords(redis: &Redis, broker: &Broker, password: &str) {
    let change = format!("rabbit_auth_backend_internal:change_password(<<\"{USER}\">>, <<\"{password}\">>, <<\"\">>).");
    broker.eval(&change).await;
    redis.cli(&["ACL", "SETUSER", USER, "on", "resetpass", &format!(">{password}"), "~*", "+@all"]).await;
    let close = format!(
        "[rabbit_networking:close_connection(Pid, \"a test\") || Pid <- rabbit_networking:connections(), \
         (catch rabbit_misc:pget(user, rabbit_reader:info(Pid, [user]))) =:= <<\"{USER}\">>]."
    );
    broker.eval(&close).await;
    redis.cli(&["CLIENT", "KILL", "USER", USER]).await;
}

#[tokio::test]
async fn every_secret_of_one_running_worker_is_rotated_and_its_jobs_go_on() {
    let (broker, redis, mut stage) = (Broker::shared().await, Redis::start().await, Stage::new().await);
    let files = Files(tempfile::tempdir().expect("a folder"));
    for name in Files::NAMES {
        stage.unset(name.trim_end_matches("_FILE")).set(name, &files.path(name));
    }
    stage.set("OTP_LEDGER_ON_ERROR", "hold");
    broker.eval(&format!("rabbit_auth_backend_internal:add_user(<<\"{USER}\">>, <<\"first\">>, <<\"\">>).")).await;
    allow(broker, USER, "/").await;
    change_passwords(&redis, broker, "old-canary").await;
    files.write(&redis, broker, "old-canary");
    stage.sandbox.set_keys("old-canary-api", "old-canary-secret");
    let mut running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    let mut accepted = async |id: &str| {
        client.publish(&stage.names.jobs, Job::for_phone(PHONE, id)).await;
        assert_eq!(ending(&results.next(LIMIT).await), ("accepted".into(), 1, false), "{id}");
        let key = format!("esms-otp-worker:/:{}:job:{id}", stage.names.jobs);
        assert_eq!(redis.cli(&["HGET", &key, "state"]).await, "done", "{id}");
    };
    accepted("before").await;

    files.write(&redis, broker, "new-canary");
    change_passwords(&redis, broker, "new-canary").await;
    // eSMS takes the old keys until the worker has the new ones.
    accepted("while eSMS takes the old keys").await;
    running.process.wait_for_log("the keys of eSMS were read again", 3 * LIMIT).await;
    stage.sandbox.set_keys("new-canary-api", "new-canary-secret");
    accepted("after").await;
    running.until_settled(&stage.names).await;
    assert_eq!(running.stop().await, Some(0), "it is the same process");
    assert!(running.process.log_containing("canary").is_empty());
}
