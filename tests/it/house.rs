//! The house in order: which file imports which, and how large each is. Read from the sources, as text.

mod imports;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::stage::PROGRAM;
use esms_otp_worker::job::state::State;
use imports::{Sources, circles};

/// The most lines of a file, and of a function.
const LONGEST_FILE: usize = 350;
const LONGEST_FUNCTION: usize = 45;

/// `main.rs` only reads the command line and dispatches.
const LONGEST_MAIN: usize = 60;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file of `src`, by its path below it.
fn sources() -> Sources {
    let mut files = BTreeMap::new();
    let mut folders = vec![root().join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind == "rs") {
                let text = std::fs::read_to_string(&path).expect("a file");
                files.insert(below_src(&path), text);
            }
        }
    }
    Sources::new(files)
}

fn below_src(path: &Path) -> String {
    let below: PathBuf = path.strip_prefix(root().join("src")).expect("a path below src").into();
    below.to_string_lossy().into_owned()
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let found = circles(&sources().imports());
    assert!(found.is_empty(), "files that import each other in a circle:\n{found:#?}");
}

#[test]
fn no_rooms_import_each_other_in_a_circle() {
    let found = circles(&sources().room_imports());
    assert!(found.is_empty(), "rooms that import each other in a circle:\n{found:#?}");
}

/// The table of CONTRIBUTING.md says what each room may import; this is what it does import.
#[test]
fn each_room_imports_what_contributing_says() {
    let written: BTreeMap<String, BTreeSet<String>> = table("CONTRIBUTING.md", "rooms").filter_map(row).collect();
    let found = sources().room_imports();
    assert_eq!(written.keys().collect::<Vec<_>>(), found.keys().collect::<Vec<_>>(), "the rooms");
    for (room, imports) in &found {
        assert_eq!(&written[room], imports, "what {room} imports");
    }
}

/// The rows of a table between two markers in a document, as cells.
fn table(document: &str, name: &str) -> impl Iterator<Item = Vec<String>> {
    let text = std::fs::read_to_string(root().join(document)).expect(document);
    let (begin, end) = (format!("<!-- {name}: begin -->"), format!("<!-- {name}: end -->"));
    let table = text.split(&begin).nth(1).and_then(|rest| rest.split(&end).next()).expect("the table").to_owned();
    let cells = |line: &str| line.trim().trim_matches('|').split(" | ").map(str::to_owned).collect();
    table.lines().map(cells).collect::<Vec<_>>().into_iter()
}

/// "| `room` | subject | `a`, `b` |".
fn row(cells: Vec<String>) -> Option<(String, BTreeSet<String>)> {
    let [room, _, imports] = cells.as_slice() else { return None };
    Some((names(room).into_iter().next()?, names(imports).into_iter().collect()))
}

/// What stands between backquotes.
fn names(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// docs/architecture.md draws the states that the code has, and names files that are there.
#[test]
fn the_states_of_a_job_are_those_of_the_architecture() {
    let mut written = Vec::new();
    for cells in table("docs/architecture.md", "states") {
        let [state, _, who] = cells.as_slice() else { continue };
        written.extend(names(state));
        for file in names(who) {
            assert!(root().join(&file).is_file(), "{file}");
        }
    }
    assert_eq!(written, State::ALL.map(State::as_str));
    let text = std::fs::read_to_string(root().join("docs/architecture.md")).expect("docs/architecture.md");
    let drawn = text.split("```text").nth(1).and_then(|rest| rest.split("```").next()).expect("the diagram");
    for state in State::ALL {
        assert!(drawn.contains(state.as_str()), "{} is not drawn", state.as_str());
    }
}

/// The scripts of the ledger write the same words.
#[test]
fn the_scripts_of_the_ledger_know_no_other_state() {
    let known: BTreeSet<&str> = State::ALL.map(State::as_str).into();
    for script in ["claim", "note", "finish"] {
        let text = std::fs::read_to_string(root().join(format!("src/ledger/{script}.lua"))).expect(script);
        let text: String = text.lines().filter(|line| !line.contains("HMGET")).collect();
        let compared = text.split("state == '").skip(1).chain(text.split("'state', '").skip(1));
        for word in compared.filter_map(|rest| rest.split('\'').next()) {
            assert!(known.contains(word), "{script}.lua: {word}");
        }
    }
}

#[test]
fn no_file_and_no_function_is_too_long() {
    let mut too_long = Vec::new();
    for (file, text) in sources().files() {
        let lines = text.lines().count();
        let most = if file == "main.rs" { LONGEST_MAIN - 1 } else { LONGEST_FILE };
        if lines > most {
            too_long.push(format!("src/{file}: {lines} lines"));
        }
        let long = functions(text).into_iter().filter(|(_, lines)| *lines > LONGEST_FUNCTION);
        too_long.extend(long.map(|(name, lines)| format!("src/{file}: fn {name}: {lines} lines")));
    }
    assert!(too_long.is_empty(), "{too_long:#?}");
}

/// Each function's name and its lines, from its signature to its closing brace; the sources are formatted,
/// so that this brace stands below the signature's first letter.
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else { continue };
        if !line.ends_with([';', '}']) {
            found.extend(length(&lines[start..]).map(|lines| (name, lines)));
        }
    }
    found
}

/// The lines of the function that begins with the first of these; none where it is only declared.
fn length(lines: &[&str]) -> Option<usize> {
    let indent = |line: &str| line.len() - line.trim_start().len();
    for (place, line) in lines.iter().enumerate().skip(1) {
        match line.trim_start().chars().next() {
            Some('}') if indent(line) == indent(lines[0]) => return Some(place + 1),
            Some(')') if indent(line) == indent(lines[0]) && line.ends_with(';') => return None,
            _ => {}
        }
    }
    None
}

fn function_name(line: &str) -> Option<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let place = words.iter().position(|word| *word == "fn")?;
    let modifiers = &words[..place];
    let known = |word: &&str| word.starts_with("pub") || matches!(*word, "const" | "async" | "unsafe");
    let name = words.get(place + 1)?;
    modifiers.iter().all(known).then(|| name.split(['(', '<']).next().unwrap_or(name).to_owned())
}

#[test]
fn a_program_with_crash_points_is_recognised() {
    let check = |program: &str| {
        let script = root().join("tests/support/no-crash-points.sh");
        Command::new(script).arg(program).output().expect("the script")
    };
    // The tests' own worker has them, and they do not get into a release: src/crash.rs.
    let refused = check(PROGRAM);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("has crash points"), "{refused:?}");
    assert!(check("/bin/sh").status.success());
}

#[test]
fn a_circle_of_files_is_found_and_named() {
    let files = |imported_by_c: &str| {
        BTreeMap::from([
            ("lib.rs".to_owned(), "pub mod a;\npub mod b;\n".to_owned()),
            ("a.rs".to_owned(), "mod c;\nuse crate::b::{self, Thing};\n".to_owned()),
            ("b.rs".to_owned(), "fn f() {\n    crate::a::c::g();\n}\n".to_owned()),
            ("a/c.rs".to_owned(), imported_by_c.to_owned()),
        ])
    };
    let of = |files| circles(&Sources::new(files).imports());
    assert!(of(files("// use super::Thing;\n")).is_empty());
    assert_eq!(of(files("use super::Thing;\n")), [["a.rs", "a/c.rs", "b.rs"]]);
    assert_eq!(of(files("use super::super::b;\n")), [["a/c.rs", "b.rs"]]);
    // What tests import does not count.
    assert!(of(files("#[cfg(test)]\nmod tests {\n    use super::super::Thing;\n}\n")).is_empty());
}

#[test]
fn the_lines_of_a_function_are_counted() {
    let text = "fn one() {\n}\nimpl X {\n    pub async fn two(\n        a: u8,\n    ) -> u8 {\n        a\n    }\n    fn short() {}\n    fn declared(\n        a: u8,\n    );\n}\n";
    assert_eq!(functions(text), [("one".to_owned(), 2), ("two".to_owned(), 5)]);
}
