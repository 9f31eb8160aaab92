//! The link against a server that a test plays. It answers as real ones do, and worse.

mod fake;

use std::net::SocketAddr;

use super::*;
use crate::ledger::address::{Address, Source, Trust};
use crate::ledger::home::{Deployment, Prefix};
use crate::settings::secret::{self, SecretFile};
use fake::{Answer, Fake, MOVED_IN};

const OK: fn() -> Answer = || Answer::Says("+OK\r\n".into());

fn error(line: &str) -> Answer {
    Answer::Says(format!("-{line}\r\n"))
}

fn url(port: u16) -> String {
    format!("redis://worker:canary@127.0.0.1:{port}/0")
}

fn source(port: u16) -> Source {
    Source::new(secret::Source::fixed(url(port)), Trust::default()).unwrap()
}

fn address(port: u16) -> Address {
    source(port).good()
}

fn dialer(source: Source) -> Dialer {
    let deployment = Deployment::default();
    Dialer::new(source, Home::new(Prefix::of(&deployment), deployment, Arc::default()))
}

fn link(fake: &Fake) -> Link {
    Link::new(dialer(source(fake.port())))
}

async fn ping(link: &Link) -> Result<String, StoreError> {
    link.step(Step::Command(&redis::cmd("PING"))).await
}

async fn until_idle(link: &Link) {
    let mut phases = link.shared.phase.subscribe();
    phases.wait_for(|phase| matches!(phase, Phase::Idle)).await.unwrap();
}

/// A step's answer, and moving in where a connection begins.
fn answers(mut step: impl FnMut(usize) -> Answer + Send + 'static) -> impl FnMut(usize, &[String]) -> Answer + Send {
    move |connection, command| match command[0].as_str() {
        "AUTH" | "SELECT" => OK(),
        "EVALSHA" => Answer::Says(MOVED_IN.into()),
        _ => step(connection),
    }
}

#[tokio::test]
async fn a_connection_that_the_server_closed_meanwhile_costs_no_step() {
    let fake = Fake::start(answers(|_| Answer::SaysAndCloses("+OK\r\n".into()))).await;
    let link = link(&fake);
    for n in 1..=5 {
        assert_eq!(ping(&link).await, Ok("OK".into()));
        assert_eq!(fake.connections(), n);
        until_idle(&link).await;
    }
}

#[tokio::test]
async fn a_connection_that_ends_under_a_step_costs_no_step_either() {
    let fake = Fake::start(answers(|connection| if connection == 1 { Answer::Closes } else { OK() })).await;
    assert_eq!(ping(&link(&fake)).await, Ok("OK".into()));
    assert_eq!(fake.connections(), 2);
}

#[tokio::test]
async fn a_connection_that_died_unseen_while_nobody_used_it_costs_no_step() {
    let mut is_first = true;
    let step = move |connection| match connection {
        1 if !std::mem::take(&mut is_first) => Answer::Nothing,
        _ => OK(),
    };
    let fake = Fake::start(answers(step)).await;
    let link = link(&fake);
    assert_eq!(ping(&link).await, Ok("OK".into()));
    tokio::time::pause();
    tokio::time::advance(SILENT + Duration::from_secs(1)).await;
    tokio::time::resume();
    assert_eq!(ping(&link).await, Ok("OK".into()));
    assert_eq!(fake.connections(), 2);
}

#[tokio::test]
async fn a_server_that_takes_no_writes_any_more_is_left_and_the_step_taken_at_the_next() {
    for line in [
        "READONLY You can't write against a read only replica.",
        "ERR Error running script (call to f_0): @user_script:5: @user_script: 5: -READONLY You can't write against a read only replica.",
        "LOADING Valkey is loading the dataset in memory",
        "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
        "NOREPLICAS Not enough good replicas to write.",
        "NOAUTH Authentication required.",
    ] {
        let fake = Fake::start(answers(move |connection| if connection == 1 { error(line) } else { OK() })).await;
        let link = link(&fake);
        assert_eq!(ping(&link).await, Ok("OK".into()), "{line}");
        assert_eq!(ping(&link).await, Ok("OK".into()), "{line}");
        assert_eq!(fake.connections(), 2, "{line}");
    }
}

#[tokio::test]
async fn a_server_that_refuses_keeps_its_connection_and_a_person_is_told_what_to_do() {
    for (line, hint) in [
        ("OOM command not allowed when used memory > 'maxmemory'.", Some("maxmemory")),
        (
            "ERR ACL failure in script: User worker has no permissions to run the 'hset' command script: 0, on @user_script:1.",
            Some("docs/ledger.md"),
        ),
        ("MISCONF Errors writing to the AOF file: No space left on device", Some("disk")),
        ("BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.", None),
    ] {
        let fake = Fake::start(answers(move |_| error(line))).await;
        let link = link(&fake);
        for _ in 0..2 {
            let said = ping(&link).await.unwrap_err();
            assert_eq!(said.hint().is_some(), hint.is_some(), "{said}");
            assert!(said.hint().unwrap_or_default().contains(hint.unwrap_or_default()), "{said}");
        }
        assert_eq!(fake.connections(), 1, "{line}");
    }
}

#[tokio::test]
async fn a_connection_that_only_refuses_in_words_nobody_knows_is_replaced() {
    let fake = Fake::start(answers(|connection| if connection == 1 { error("ERR in a new way") } else { OK() })).await;
    let link = link(&fake);
    for n in 1..=3 {
        assert!(ping(&link).await.is_err(), "{n}");
    }
    assert_eq!(ping(&link).await, Ok("OK".into()));
    assert_eq!(fake.connections(), 2);
}

#[tokio::test]
async fn what_a_server_says_to_the_login_is_told_with_a_hint_and_without_the_password() {
    for (line, hint) in [
        ("WRONGPASS invalid username-password pair or user is disabled.", "password"),
        ("ERR unknown command 'AUTH', with args beginning with: 'worker' 'canary' ", "docs/ledger.md"),
        // Cut within the password.
        ("ERR unknown command 'AUTH', with args beginning with: 'worker' 'canar", "docs/ledger.md"),
        ("ERR max number of clients reached", "maxclients"),
    ] {
        let fake = Fake::start(move |_, command| if command[0] == "AUTH" { error(line) } else { OK() }).await;
        let said = link(&fake).connected().await.unwrap_err();
        assert!(said.hint().is_some_and(|said| said.contains(hint)), "{said:?}");
        assert!(!format!("{said} {said:?}").contains("canar"), "{said:?}");
    }
}

#[tokio::test]
async fn a_prefix_that_is_anothers_is_said_with_whose_it_is() {
    let home = "*4\r\n$7\r\nanother\r\n$1\r\n/\r\n$9\r\notp.other\r\n$6\r\nrabbit\r\n";
    let fake = Fake::start(move |_, command| if command[0] == "AUTH" { OK() } else { Answer::Says(home.into()) }).await;
    let said = link(&fake).connected().await.unwrap_err();
    assert!(matches!(said, StoreError::NotOurs(_)), "{said:?}");
    assert!(said.to_string().contains("otp.other") && said.to_string().contains("rabbit"), "{said}");
    assert!(said.hint().is_some_and(|hint| hint.contains("OTP_LEDGER_PREFIX")));
}

/// A server with the home of a broker that is called `rabbit@new`, or of none. `amid` is called while a connection
/// under an old name moves in.
async fn home_of_new(amid: impl Fn() + Send + 'static) -> Fake {
    let another = "*4\r\n$7\r\nanother\r\n$1\r\n/\r\n$8\r\notp.jobs\r\n$10\r\nrabbit@new\r\n";
    Fake::start(move |_, command| match (command[0].as_str(), command.get(6).map(String::as_str)) {
        ("EVALSHA", Some("rabbit@old")) => {
            amid();
            Answer::Says(another.into())
        }
        ("EVALSHA", Some("")) => {
            amid();
            Answer::Says(MOVED_IN.into())
        }
        ("EVALSHA", _) => Answer::Says(MOVED_IN.into()),
        _ => OK(),
    })
    .await
}

#[tokio::test]
async fn an_answer_to_an_old_name_of_the_broker_is_not_taken_for_one_to_the_new() {
    // The old name, and whether the new one becomes known before the answer to the old one or after it.
    for (old, amid) in [("rabbit@old", true), ("rabbit@old", false), ("", true), ("", false)] {
        let shared: Arc<OnceLock<Arc<Shared>>> = Arc::default();
        let renamed = Arc::clone(&shared);
        let rename = move || renamed.get().unwrap().dialer.home().set_broker("rabbit@new");
        let rename_amid = rename.clone();
        let fake = home_of_new(move || {
            if amid {
                rename_amid()
            }
        })
        .await;
        let link = link(&fake);
        shared.set(Arc::clone(&link.shared)).unwrap();
        if !old.is_empty() {
            link.home().set_broker(old);
        }
        assert_eq!(link.connected().await.is_ok(), old.is_empty(), "{old} {amid}: whoever asked before hears the old");
        rename();
        assert_eq!(link.connected().await, Ok(()), "{old} {amid}");
        let asked = fake.connections();
        assert!(asked > 1, "{old} {amid}: it was asked again");
        assert_eq!(ping(&link).await, Ok("OK".into()));
        assert_eq!(link.connected().await, Ok(()));
        assert_eq!(fake.connections(), asked, "{old} {amid}: and no more");
    }
}

#[tokio::test]
async fn many_steps_wait_shortly_for_one_connection_that_is_not_made_and_later_ones_not_at_all() {
    let fake = Fake::start(|_, _| Answer::Nothing).await;
    let link = link(&fake);
    let many = || futures_util::future::join_all((0..50).map(|_| ping(&link)));
    assert!(many().await.iter().all(Result::is_err));
    let began = Instant::now();
    for _ in 0..20 {
        assert!(many().await.iter().all(Result::is_err));
    }
    assert!(began.elapsed() < 10 * CONNECT_WAIT, "each waited: {:?}", began.elapsed());
    assert_eq!(fake.connections(), 1, "one try at a time");
}

#[tokio::test]
async fn a_server_that_is_back_is_found_without_a_step_that_asks_for_it() {
    let fake = Fake::start(answers(|_| OK())).await;
    let port = fake.port();
    drop(fake);
    let link = Link::new(dialer(source(port)));
    assert!(ping(&link).await.is_err());
    let mut phases = link.shared.phase.subscribe();
    assert!(matches!(&*phases.borrow(), Phase::Away(..)));
    let back = Fake::start_at(port, answers(|_| OK())).await;
    phases.wait_for(|phase| matches!(phase, Phase::Up(..))).await.unwrap();
    assert_eq!(ping(&link).await, Ok("OK".into()));
    assert_eq!(back.connections(), 1);
}

#[tokio::test]
async fn a_server_that_ends_each_connection_is_not_run_after() {
    let fake = Fake::start(answers(|_| Answer::Closes)).await;
    let link = link(&fake);
    assert!(ping(&link).await.is_err());
    assert!(fake.connections() <= 3, "{}", fake.connections());
    assert!(matches!(ping(&link).await, Err(StoreError::Unreachable(_))));
}

#[tokio::test]
async fn of_several_addresses_the_first_that_takes_writes_is_taken_whatever_the_others_do() {
    let gone: SocketAddr = ([127, 0, 0, 1], Fake::start(|_, _| OK()).await.port()).into();
    let silent = Fake::start(|_, _| Answer::Nothing).await;
    let replica = Fake::start(|_, command| match command[0].as_str() {
        "EVALSHA" => error("READONLY You can't write against a read only replica."),
        _ => OK(),
    })
    .await;
    let primary = Fake::start(answers(|_| OK())).await;
    let dialer = dialer(source(primary.port()));
    let live = dialer.first_of(&address(0), vec![gone, silent.addr(), replica.addr(), primary.addr()]).await.unwrap();
    assert!(!live.is_dead());
    assert_eq!((silent.connections(), replica.connections(), primary.connections()), (1, 1, 1));
    let said = dialer.first_of(&address(0), vec![replica.addr(), gone]).await.unwrap_err();
    assert!(matches!(said, StoreError::Unreachable(_)), "{said:?}");
}

#[tokio::test]
async fn a_password_rotated_in_its_file_is_used_at_the_next_connection_and_a_cut_file_does_no_harm() {
    let valid = Arc::new(std::sync::Mutex::new("old"));
    let asked = Arc::clone(&valid);
    let fake = Fake::start(move |connection, command| match command[0].as_str() {
        "AUTH" if command[2] != *asked.lock().unwrap() => error("WRONGPASS invalid username-password pair"),
        _ => answers(|_| Answer::SaysAndCloses("+OK\r\n".into()))(connection, command),
    })
    .await;
    let url = |password: &str| format!("redis://worker:{password}@127.0.0.1:{}", fake.port());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("url");
    std::fs::write(&path, url("old")).unwrap();
    let file = Some(SecretFile::new("OTP_LEDGER_URL_FILE", &path));
    let source = Source::new(secret::Source { text: url("old"), file }, Trust::default()).unwrap();
    let link = Link::new(dialer(source));
    // The file, the password that the server takes, and whether the link works then.
    for (file, takes, works) in [
        (url("old"), "old", true),
        (url("new"), "old", true),
        (url("new"), "new", true),
        (String::new(), "new", true),
        (url("new")[..18].to_owned(), "new", true),
        (url("newer"), "newer", true),
        (url("old"), "another", false),
    ] {
        std::fs::write(&path, &file).unwrap();
        *valid.lock().unwrap() = takes;
        assert_eq!(ping(&link).await.is_ok(), works, "{file} {takes}");
        if works {
            until_idle(&link).await;
        }
    }
}
