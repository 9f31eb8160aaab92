//! Checks that what the README says is true.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use esms_otp_worker::settings::table::{self as settings, Setting};

use crate::stage::Stage;
use crate::support::metrics::Scrape;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const BEGIN: &str = "<!-- settings: begin -->\n";
const END: &str = "<!-- settings: end -->";

fn readme() -> String {
    std::fs::read_to_string(Path::new(ROOT).join("README.md")).unwrap()
}

/// The settings as the README shows them, in the order of `--help`.
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

/// `UPDATE_README=1 cargo test readme` writes the table instead of comparing it.
#[test]
fn the_settings_in_the_readme_are_those_of_the_program() {
    let readme = readme();
    let (before, rest) = readme.split_once(BEGIN).expect(BEGIN);
    let (table, after) = rest.split_once(END).expect(END);
    let wanted = settings_table();
    if std::env::var_os("UPDATE_README").is_some() {
        std::fs::write(Path::new(ROOT).join("README.md"), format!("{before}{BEGIN}{wanted}{END}{after}")).unwrap();
        return;
    }
    assert_eq!(table, wanted, "run: UPDATE_README=1 cargo test --test it readme");
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

#[test]
fn every_link_in_the_documents_leads_to_a_file() {
    for document in ["README.md", "CONTRIBUTING.md", "docs/architecture.md"] {
        let path = Path::new(ROOT).join(document);
        let text = std::fs::read_to_string(&path).expect(document);
        let targets: Vec<&str> = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()).collect();
        assert!(targets.len() > 3, "{document}: {targets:?}");
        for target in targets.into_iter().filter(|target| !target.is_empty() && !target.contains("://")) {
            assert!(path.parent().expect("a folder").join(target).exists(), "{document}: {target}");
        }
    }
}

/// The text in fenced blocks and between backticks.
fn code(readme: &str) -> Vec<&str> {
    readme.split('`').skip(1).step_by(2).chain(readme.split("```").skip(1).step_by(2)).collect()
}

#[test]
fn every_make_target_in_the_readme_is_in_the_makefile() {
    let makefile = std::fs::read_to_string(Path::new(ROOT).join("Makefile")).unwrap();
    let readme = readme();
    let mut named = BTreeSet::new();
    for words in
        code(&readme).iter().flat_map(|code| code.lines()).map(|line| line.split_whitespace().collect::<Vec<_>>())
    {
        named.extend(words.windows(2).filter(|pair| pair[0] == "make").map(|pair| pair[1].to_owned()));
    }
    assert!(named.contains("demo") && named.contains("test"), "{named:?}");
    for target in named {
        assert!(makefile.lines().any(|line| line.starts_with(&format!("{target}:"))), "make {target}");
    }
}

/// The README's metrics and the labels of each.
fn metrics_in_readme(readme: &str) -> BTreeMap<String, BTreeSet<String>> {
    let (_, table) = readme.split_once("| metric | labels | |\n").expect("the table of metrics");
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
async fn the_metrics_in_the_readme_are_those_that_are_served() {
    let running = Stage::new().await.worker_with_every_metric().await;
    assert_eq!(metrics_in_readme(&readme()), metrics_served(&Scrape::of(running.http).await));
}
