//! `purge` removes what was chosen, and only that.

use super::{
    GIVEN_UP, REFUSED, aged, assert_said, dead_letters, kept, letter, letters_left, settings, stage, until_letters,
};
use crate::program::{command, terminal};
use crate::stage::LIMIT;

#[tokio::test]
async fn what_is_chosen_is_removed_and_nothing_else() {
    let (stage, _redis) = stage().await;
    let few = [aged(letter(1, "old", REFUSED), 7_200), letter(2, "b", GIVEN_UP), letter(3, "c", REFUSED)];
    kept(&stage, few).await;
    let ended = dead_letters(&stage, &["purge", "--older-than", "1h", "--dry-run"]).await;
    assert_said(&ended, 0, &["1 letter of 3 on", "would be purged"]);
    assert_eq!(letters_left(&stage).await, 3);
    let ended = dead_letters(&stage, &["purge", "--older-than", "1h", "--yes"]).await;
    assert_said(&ended, 0, &["1 letter purged", "2 stay"]);
    until_letters(&stage, 2).await;
    let listed = dead_letters(&stage, &["list"]).await;
    assert!(!listed.stdout.contains("old") && listed.stdout.lines().count() == 2, "{listed:?}");
    let ended = dead_letters(&stage, &["purge", "--id", "b", "--id", "gone", "--yes"]).await;
    assert_said(&ended, 1, &["there is no letter with the id gone", "1 letter purged"]);
    until_letters(&stage, 1).await;
    assert_said(&dead_letters(&stage, &["purge", "--all", "--yes"]).await, 0, &["1 letter purged", "0 stay"]);
    until_letters(&stage, 0).await;
    assert_said(&dead_letters(&stage, &["purge", "--all", "--yes"]).await, 0, &["0 letters purged"]);
}

#[tokio::test]
async fn every_other_letter_of_many_is_removed() {
    let (stage, _redis) = stage().await;
    let reason = |n: usize| if n.is_multiple_of(2) { REFUSED } else { GIVEN_UP };
    kept(&stage, (0..2_000).map(|n| letter(n, &n.to_string(), reason(n)))).await;
    let ended = dead_letters(&stage, &["purge", "--reason", "gave the job up", "--yes"]).await;
    assert_said(&ended, 0, &["1000 letters purged", "1000 stay"]);
    until_letters(&stage, 1_000).await;
    let listed = dead_letters(&stage, &["list"]).await;
    assert!(listed.stdout.lines().all(|line| line.contains(REFUSED)) && listed.stdout.lines().count() == 1_000);
}

#[tokio::test]
async fn on_a_terminal_it_asks_first() {
    let (stage, _redis) = stage().await;
    kept(&stage, [letter(1, "a", REFUSED)]).await;
    for (answer, code, left, said) in [("n\n", 1, 1, "1 stay"), ("\n", 1, 1, "1 stay"), ("yes\n", 0, 0, "0 stay")] {
        let (mut ours, theirs) = terminal();
        let mut child = command(&["dead-letters", "purge", "--all"], &settings(&stage));
        let child = child.stdin(theirs).spawn().expect("the program");
        std::io::Write::write_all(&mut ours, answer.as_bytes()).expect("a terminal");
        let ended = tokio::time::timeout(LIMIT, child.wait_with_output()).await.expect("its end").expect("a child");
        let (out, err) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
        assert!(err.contains("Remove 1 letter of 1 from") && out.contains(said), "{answer:?}: {out}{err}");
        assert_eq!(ended.status.code(), Some(code), "{answer:?}: {out}{err}");
        until_letters(&stage, left).await;
    }
}
