//! Checks that what the README and the pages of docs say is true.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use esms_otp_worker::job::schema;
use esms_otp_worker::settings::table::{self as settings, Setting};

use crate::program::run;
use crate::stage::Stage;
use crate::support::metrics::Scrape;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const BEGIN: &str = "<!-- settings: begin -->\n";
const END: &str = "<!-- settings: end -->";

const SETTINGS: &str = "docs/settings.md";

fn document(path: &str) -> String {
    std::fs::read_to_string(Path::new(ROOT).join(path)).expect(path)
}

/// The pages at the root and of the examples, and every page of docs.
fn documents() -> Vec<String> {
    let pages = std::fs::read_dir(Path::new(ROOT).join("docs")).unwrap();
    let pages = pages.map(|page| format!("docs/{}", page.unwrap().file_name().to_string_lossy()));
    ["README.md", "CONTRIBUTING.md", "examples/README.md"]
        .map(str::to_owned)
        .into_iter()
        .chain(pages.filter(|page| page.ends_with(".md")))
        .collect()
}

/// The settings as docs/settings.md shows them, in the order of `--help`.
fn settings_table() -> String {
    let mut table = "| variable | flag | default | meaning |\n|---|---|---|---|\n".to_owned();
    let mut group = None;
    for setting in settings::ALL {
        if group.replace(setting.group) != Some(setting.group) {
            writeln!(table, "| **{}** | | | |", setting.group.heading()).unwrap();
        }
        table.push_str(&row(setting));
    }
    table
}

fn row(setting: &Setting) -> String {
    let default = setting.default.map(|default| format!("`{default}`")).unwrap_or_default();
    format!("| `{}` | `--{}` | {default} | {} |\n", setting.env, setting.flag, setting.help.replace('|', "\\|"))
}

/// `UPDATE_DOCS=1 cargo test documents` writes the table instead of comparing it.
#[test]
fn the_settings_in_the_documents_are_those_of_the_program() {
    let document = document(SETTINGS);
    let (before, rest) = document.split_once(BEGIN).expect(BEGIN);
    let (table, after) = rest.split_once(END).expect(END);
    let wanted = settings_table();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(Path::new(ROOT).join(SETTINGS), format!("{before}{BEGIN}{wanted}{END}{after}")).unwrap();
        return;
    }
    assert_eq!(table, wanted, "run: UPDATE_DOCS=1 cargo test --test it documents");
}

#[test]
fn every_group_of_settings_is_in_one_piece() {
    let mut seen = Vec::new();
    for setting in settings::ALL {
        if seen.last() != Some(&setting.group) {
            assert!(!seen.contains(&setting.group), "{:?} comes twice", setting.group);
            seen.push(setting.group);
        }
    }
}

/// What a heading is called in a link.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn every_link_in_the_documents_leads_to_a_file_and_to_a_heading_in_it() {
    for document in documents() {
        let path = Path::new(ROOT).join(&document);
        let text = std::fs::read_to_string(&path).unwrap();
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for target in targets.filter(|target| !target.contains("://")) {
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let led = if file.is_empty() { path.clone() } else { path.parent().expect("a folder").join(file) };
            assert!(led.exists(), "{document}: {target}");
            if !heading.is_empty() {
                let text = std::fs::read_to_string(&led).unwrap();
                let headings =
                    text.lines().filter_map(|line| line.strip_prefix('#')).map(|line| line.trim_start_matches('#'));
                assert!(headings.map(anchor).any(|anchor| anchor == heading), "{document}: {target}");
            }
        }
    }
}

/// The text in fenced blocks and between backticks.
fn code(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).chain(text.split("```").skip(1).step_by(2)).collect()
}

#[test]
fn every_make_target_in_the_documents_is_in_the_makefile() {
    let makefile = document("Makefile");
    let mut named = BTreeSet::new();
    for text in documents().iter().map(|page| document(page)) {
        let lines = code(&text).into_iter().flat_map(str::lines);
        for words in lines.map(|line| line.split_whitespace().collect::<Vec<_>>()) {
            named.extend(words.windows(2).filter(|pair| pair[0] == "make").map(|pair| pair[1].to_owned()));
        }
    }
    assert!(named.contains("demo") && named.contains("test"), "{named:?}");
    for target in named {
        assert!(makefile.lines().any(|line| line.starts_with(&format!("{target}:"))), "make {target}");
    }
}

/// The metrics of docs/watching.md and the labels of each.
fn metrics_told(document: &str) -> BTreeMap<String, BTreeSet<String>> {
    let (_, table) = document.split_once("| metric | labels | |\n").expect("the table of metrics");
    let rows = table.lines().skip(1).take_while(|line| line.starts_with('|'));
    let mut metrics = BTreeMap::new();
    for row in rows {
        let cells: Vec<&str> = row.split('|').collect();
        let names = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<BTreeSet<_>>();
        for name in names(cells[1]) {
            metrics.insert(name, names(cells[2]));
        }
    }
    metrics.remove("process_*").expect("process_*");
    metrics
}

/// The metrics that are served and the labels of each, without the buckets of histograms.
fn metrics_served(scrape: &Scrape) -> BTreeMap<String, BTreeSet<String>> {
    let mut metrics = BTreeMap::new();
    for name in scrape.text().lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()) {
        if name.starts_with("process_") {
            continue;
        }
        let samples = scrape.text().lines().filter_map(|line| line.strip_prefix(name)?.split_once('{'));
        let labels = samples
            .filter(|(suffix, _)| matches!(*suffix, "" | "_count"))
            .flat_map(|(_, labels)| labels.split('}').next().unwrap_or_default().split(','))
            .filter_map(|label| label.split('=').next().map(str::to_owned));
        metrics.insert(name.to_owned(), labels.collect());
    }
    metrics
}

#[tokio::test]
async fn the_metrics_in_the_documents_are_those_that_are_served() {
    let running = Stage::new().await.worker_with_every_metric().await;
    assert_eq!(metrics_told(&document("docs/watching.md")), metrics_served(&Scrape::of(running.http).await));
}

/// `UPDATE_DOCS=1 cargo test documents` writes the files instead of comparing them.
#[tokio::test]
async fn the_schemas_in_the_documents_are_those_that_the_program_prints() {
    for what in ["job", "result", "asyncapi"] {
        let printed = run(&["schema", what], &[]).await;
        assert_eq!((printed.code, printed.stderr.as_str()), (0, ""), "{what}");
        let path = format!("docs/schemas/{what}.json");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(Path::new(ROOT).join(&path), &printed.stdout).unwrap();
        }
        assert_eq!(document(&path), printed.stdout, "run: UPDATE_DOCS=1 cargo test --test it documents");
    }
}

#[test]
fn every_job_and_result_in_the_documents_is_one() {
    let [job, result] = [schema::job(), schema::result()].map(|schema| jsonschema::validator_for(&schema).unwrap());
    let mut seen = [0, 0];
    for page in documents() {
        let text = document(&page);
        for block in text.split("```json\n").skip(1).filter_map(|rest| rest.split("```").next()) {
            let value: serde_json::Value =
                serde_json::from_str(block).unwrap_or_else(|error| panic!("{page}: {error}: {block}"));
            let is_result = value.get("Outcome").is_some();
            seen[usize::from(is_result)] += 1;
            assert!(if is_result { &result } else { &job }.is_valid(&value), "{page}: {block}");
        }
    }
    assert!(seen.iter().all(|seen| *seen >= 2), "{seen:?}");
}
