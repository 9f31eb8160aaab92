//! What an error of the server means: for the connection, and for who mends it. Pure.
//!
//! Servers word the same error in several ways. Redis 6 puts the error of a command in a script behind a text
//! of its own (`ERR Error running script (call to …): @user_script: 2: -READONLY …`), later ones put the script behind
//! the error, and proxies have errors of their own. So the code is looked for in the whole text.

/// What an error means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// The record of this one job is of another kind. The server works.
    BadRecord,
    /// The server does not take the step.
    Refused {
        /// Whether a new connection may help: it may lead to another server, or log in anew.
        reconnect: bool,
        /// What a person must do, where it does not mend itself.
        hint: Option<&'static str>,
    },
}

/// It mends itself, and a new connection may find the server that takes the step.
const ELSEWHERE: Meaning = Meaning::Refused { reconnect: true, hint: None };

/// It mends itself, and the connection is good.
const LATER: Meaning = Meaning::Refused { reconnect: false, hint: None };

const fn a_person(hint: &'static str) -> Meaning {
    Meaning::Refused { reconnect: false, hint: Some(hint) }
}

const fn a_person_and_reconnect(hint: &'static str) -> Meaning {
    Meaning::Refused { reconnect: true, hint: Some(hint) }
}

const LOGIN: &str = "set the user and the password in OTP_LEDGER_URL, or in its file, to those of the server";
const PERMISSIONS: &str = "give the Redis user the keys and the commands that docs/ledger.md names";
const CLUSTER: &str = "Redis Cluster is not spoken: let OTP_LEDGER_URL name one server, or one with replicas";
const FULL: &str = "raise maxmemory on the server, or lower OTP_LEDGER_TTL";
const DISK: &str = "see why the server cannot write to its disk (its log says so)";
const CLIENTS: &str = "raise maxclients on the server, or find out who holds its connections";
const DATABASE: &str = "let the path of OTP_LEDGER_URL be a database number that the server has, such as /0";
const COMMAND: &str =
    "the server, or a proxy before it, does not know a command that the ledger needs: see docs/ledger.md";

/// The codes of errors.
const CODES: [(&str, Meaning); 21] = [
    ("WRONGTYPE", Meaning::BadRecord),
    // A primary that was demoted, or a replica.
    ("READONLY", ELSEWHERE),
    ("MASTERDOWN", ELSEWHERE),
    ("LOADING", ELSEWHERE),
    ("FAILOVER", ELSEWHERE),
    ("UNBLOCKED", ELSEWHERE),
    ("REDIRECT", ELSEWHERE),
    // A primary that the network has cut from its replicas says so too, and is no primary any more.
    ("NOREPLICAS", ELSEWHERE),
    ("CLUSTERDOWN", a_person_and_reconnect(CLUSTER)),
    ("MOVED", a_person_and_reconnect(CLUSTER)),
    ("ASK", a_person_and_reconnect(CLUSTER)),
    ("CROSSSLOT", a_person(CLUSTER)),
    ("NOAUTH", a_person_and_reconnect(LOGIN)),
    ("WRONGPASS", a_person_and_reconnect(LOGIN)),
    ("NOPERM", a_person(PERMISSIONS)),
    ("OOM", a_person(FULL)),
    ("MISCONF", a_person(DISK)),
    ("BUSY", LATER),
    ("TRYAGAIN", LATER),
    ("NOSCRIPT", LATER),
    ("EXECABORT", LATER),
];

/// What errors without a code of their own say, in small letters.
const WORDS: [(&str, Meaning); 13] = [
    ("max number of clients", a_person_and_reconnect(CLIENTS)),
    // Redis 6, in a script.
    ("can't run this command", a_person(PERMISSIONS)),
    ("can't access at least one of the keys", a_person(PERMISSIONS)),
    // Redis 7, in a script.
    ("acl failure in script", a_person(PERMISSIONS)),
    ("invalid password", a_person_and_reconnect(LOGIN)),
    ("no password is set", a_person_and_reconnect(LOGIN)),
    ("without any password configured", a_person_and_reconnect(LOGIN)),
    ("invalid db index", a_person_and_reconnect(DATABASE)),
    ("db index is out of range", a_person_and_reconnect(DATABASE)),
    ("select is not allowed in cluster mode", a_person_and_reconnect(DATABASE)),
    ("unknown command", a_person(COMMAND)),
    ("unsupported command", a_person(COMMAND)),
    // Another program answers, such as a web server or a port of the server with TLS.
    ("protocol error", ELSEWHERE),
];

/// What an error means that came with this code and this text.
pub fn meaning(code: &str, text: &str) -> Meaning {
    let in_text = || text.split([' ', ':', '"', '\'']).find_map(|word| of_code(word.strip_prefix('-')?));
    let small = text.to_lowercase();
    of_code(code)
        .or_else(in_text)
        .or_else(|| WORDS.iter().find(|(words, _)| small.contains(words)).map(|(_, meaning)| *meaning))
        // Not known. The link replaces a connection on which nothing works any more.
        .unwrap_or(LATER)
}

fn of_code(word: &str) -> Option<Meaning> {
    CODES.iter().find(|(code, _)| *code == word).map(|(_, meaning)| *meaning)
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ_ONLY: &str = "You can't write against a read only replica.";

    /// The error as a server writes it, without its first `-`.
    fn of(line: &str) -> Meaning {
        let (code, text) = line.split_once(' ').unwrap_or((line, ""));
        meaning(code, text)
    }

    fn in_script_of_redis_6(error: &str) -> String {
        format!(
            "ERR Error running script (call to f_f74233f556d3f99c50b61169cf8aa8d5deb63fb2): @user_script:5: @user_script: 5: {error}"
        )
    }

    fn in_script_of_redis_7(error: &str) -> String {
        format!("{error} script: f74233f556d3f99c50b61169cf8aa8d5deb63fb2, on @user_script:5.")
    }

    #[test]
    fn a_server_that_takes_no_writes_now_is_left_for_another_whatever_its_version() {
        for error in [
            format!("READONLY {READ_ONLY}"),
            "READONLY You can't write against a read only slave.".into(),
            in_script_of_redis_6(&format!("-READONLY {READ_ONLY}")),
            in_script_of_redis_7(&format!("READONLY {READ_ONLY}")),
            // Dragonfly.
            format!(
                "ERR Error running script (call to a1de965f42e177aa339706bd580f049065eca79a): @user_script:2: -READONLY {READ_ONLY}"
            ),
            "LOADING Redis is loading the dataset in memory".into(),
            "LOADING Valkey is loading the dataset in memory".into(),
            "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.".into(),
            in_script_of_redis_6("-MASTERDOWN Link with MASTER is down and slave-serve-stale-data is set to 'no'."),
            "NOREPLICAS Not enough good replicas to write.".into(),
            in_script_of_redis_6("-NOREPLICAS Not enough good slaves to write."),
            "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)".into(),
            "REDIRECT 10.0.0.7:6379".into(),
            "ERR Protocol error: invalid multibulk length".into(),
        ] {
            assert_eq!(of(&error), ELSEWHERE, "{error}");
        }
    }

    #[test]
    fn what_ends_by_itself_is_waited_for_on_the_same_connection() {
        for error in [
            "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
            "BUSY Valkey is busy running a script. You can only call FUNCTION KILL or SHUTDOWN NOSAVE.",
            "TRYAGAIN Multiple keys request during rehashing of slot",
            "NOSCRIPT No matching script. Please use EVAL.",
            // Envoy, and twemproxy.
            "upstream failure",
            "no upstream host",
            "ERR Connection refused",
            "ERR Connection timed out",
            "ERR of a kind that nobody has seen",
            "",
        ] {
            assert_eq!(of(error), LATER, "{error}");
        }
    }

    #[test]
    fn what_a_person_must_mend_comes_with_the_right_hint() {
        let oom = "OOM command not allowed when used memory > 'maxmemory'.";
        let misconf =
            "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.";
        for (error, hint, reconnect) in [
            ("NOAUTH Authentication required.".into(), LOGIN, true),
            ("WRONGPASS invalid username-password pair or user is disabled.".into(), LOGIN, true),
            ("ERR invalid password".into(), LOGIN, true),
            ("ERR Client sent AUTH, but no password is set".into(), LOGIN, true),
            ("ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?".into(), LOGIN, true),
            ("NOPERM this user has no permissions to run the 'evalsha' command or its subcommand".into(), PERMISSIONS, false),
            ("NOPERM User worker has no permissions to run the 'script|load' command".into(), PERMISSIONS, false),
            ("NOPERM this user has no permissions to access one of the keys used as arguments".into(), PERMISSIONS, false),
            (in_script_of_redis_6("The user executing the script can't run this command or subcommand"), PERMISSIONS, false),
            (in_script_of_redis_6("The user executing the script can't access at least one of the keys mentioned in the command arguments"), PERMISSIONS, false),
            (in_script_of_redis_7("ERR ACL failure in script: User worker has no permissions to run the 'hset' command"), PERMISSIONS, false),
            (oom.into(), FULL, false),
            (in_script_of_redis_6(&format!("-{oom}")), FULL, false),
            (in_script_of_redis_7(oom), FULL, false),
            (misconf.into(), DISK, false),
            (in_script_of_redis_6(&format!("-{misconf}")), DISK, false),
            ("MISCONF Errors writing to the AOF file: No space left on device".into(), DISK, false),
            ("MISCONF Valkey is configured to save RDB snapshots, but it's currently unable to persist to disk.".into(), DISK, false),
            ("ERR max number of clients reached".into(), CLIENTS, true),
            ("ERR max number of clients + cluster connections reached".into(), CLIENTS, true),
            ("CLUSTERDOWN Hash slot not served".into(), CLUSTER, true),
            ("MOVED 3999 10.0.0.7:6379".into(), CLUSTER, true),
            ("ASK 3999 10.0.0.7:6379".into(), CLUSTER, true),
            (in_script_of_redis_6("-CLUSTERDOWN The cluster is down"), CLUSTER, true),
            ("ERR invalid DB index".into(), DATABASE, true),
            ("ERR DB index is out of range".into(), DATABASE, true),
            ("ERR SELECT is not allowed in cluster mode".into(), DATABASE, true),
            ("ERR unknown command 'EVALSHA', with args beginning with: '0'".into(), COMMAND, false),
            ("ERR unsupported command 'evalsha'".into(), COMMAND, false),
        ] {
            assert_eq!(of(&error), Meaning::Refused { reconnect, hint: Some(hint) }, "{error}");
        }
    }

    #[test]
    fn a_record_of_another_kind_is_not_the_servers_fault() {
        let wrong_type = "WRONGTYPE Operation against a key holding the wrong kind of value";
        for error in [wrong_type.to_owned(), in_script_of_redis_6(&format!("-{wrong_type}"))] {
            assert_eq!(of(&error), Meaning::BadRecord, "{error}");
        }
    }

    #[test]
    fn a_word_that_only_looks_like_a_code_is_none() {
        for error in ["ERR a READONLY user wrote this", "ERR -OOMPH", "ERR key -readonly"] {
            assert_eq!(of(error), LATER, "{error}");
        }
    }
}
