//! Keys that are rotated while the program runs.

use std::collections::BTreeMap;
use std::path::Path;

use esms_otp_worker::config::Config;
use esms_otp_worker::esms::balance::BalanceError;
use esms_otp_worker::esms::client::Esms;
use esms_otp_worker::sandbox::{Sandbox, Settings};

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
