//! Which file imports which, read from paths that begin with `crate`, `super` or `self`, and from those that
//! begin with a module declared in the same file. Comments, strings and tests are left out.

use std::collections::{BTreeMap, BTreeSet};

/// Who imports whom.
pub(crate) type Imports = BTreeMap<String, BTreeSet<String>>;

/// The files of a crate, by their path below its root.
pub(crate) struct Sources {
    files: BTreeMap<String, String>,
    /// Each module's path, such as `ledger::redis`, and its file.
    modules: BTreeMap<String, String>,
}

impl Sources {
    pub(crate) fn new(files: BTreeMap<String, String>) -> Self {
        let modules = files.keys().map(|file| (module(file), file.clone())).collect();
        Self { files, modules }
    }

    pub(crate) const fn files(&self) -> &BTreeMap<String, String> {
        &self.files
    }

    /// The files that each file imports.
    pub(crate) fn imports(&self) -> Imports {
        let code = self.files.iter().filter(|(file, _)| !is_test(file));
        code.map(|(file, text)| (file.clone(), self.imported_by(file, text))).collect()
    }

    /// The rooms that each room imports. A room is a file or folder right below the root.
    pub(crate) fn room_imports(&self) -> Imports {
        let mut rooms = Imports::new();
        for (file, imported) in self.imports() {
            let Some(of) = room(&file) else { continue };
            let others = imported.iter().filter_map(|file| room(file)).filter(|other| *other != of);
            rooms.entry(of.clone()).or_default().extend(others);
        }
        rooms
    }

    fn imported_by(&self, file: &str, text: &str) -> BTreeSet<String> {
        let text = without_comments(text.split("#[cfg(test)]").next().unwrap_or_default());
        let here: Vec<String> = module(file).split("::").filter(|name| !name.is_empty()).map(str::to_owned).collect();
        let tokens = tokens(&text);
        let children: BTreeSet<&str> =
            tokens.windows(3).filter(|three| three[0] == "mod" && three[2] == ";").map(|three| three[1]).collect();
        let mut imported = BTreeSet::new();
        for start in 0..tokens.len() {
            let begins = start == 0 || tokens[start - 1] != "::";
            let known = matches!(tokens[start], "crate" | "super" | "self") || children.contains(tokens[start]);
            if begins && known && tokens.get(start + 1) == Some(&"::") {
                let mut paths = Vec::new();
                expand(&tokens, start, &mut Vec::new(), &mut paths);
                imported.extend(paths.iter().filter_map(|path| self.file_of(&here, path)));
            }
        }
        imported.remove(file);
        imported
    }

    /// The file of the longest module that the path leads to, seen from the module `here`.
    fn file_of(&self, here: &[String], path: &[&str]) -> Option<String> {
        let mut absolute: Vec<&str> = here.iter().map(String::as_str).collect();
        for (place, name) in path.iter().enumerate() {
            match *name {
                "crate" if place == 0 => absolute.clear(),
                "self" => {}
                "super" => drop(absolute.pop()),
                name => absolute.push(name),
            }
        }
        while !absolute.is_empty() {
            if let Some(file) = self.modules.get(&absolute.join("::")) {
                return Some(file.clone());
            }
            absolute.pop();
        }
        None
    }
}

fn is_test(file: &str) -> bool {
    file.ends_with("tests.rs") || file.contains("tests/")
}

/// `ledger/redis.rs` is `ledger::redis`; `lib.rs` and programs are the root.
fn module(file: &str) -> String {
    match file {
        "lib.rs" | "main.rs" => String::new(),
        other => other.trim_end_matches(".rs").replace('/', "::"),
    }
}

fn room(file: &str) -> Option<String> {
    let name = file.split('/').next()?.trim_end_matches(".rs");
    (!matches!(name, "lib" | "main" | "bin")).then(|| name.to_owned())
}

fn without_comments(text: &str) -> String {
    let code = |line: &str| line.split("//").next().unwrap_or_default().to_owned();
    text.lines().map(code).collect::<Vec<_>>().join("\n")
}

/// Words, `::`, and single other characters.
fn tokens(text: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let is_word = |letter: char| letter.is_alphanumeric() || letter == '_';
        let length = if first.is_whitespace() {
            rest = rest.trim_start();
            continue;
        } else if is_word(first) {
            rest.find(|letter| !is_word(letter)).unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        tokens.push(&rest[..length]);
        rest = &rest[length..];
    }
    tokens
}

/// Every path of the tree that begins at `at`, such as both of `crate::a::{b, c::d}`; where it ends.
fn expand<'a>(tokens: &[&'a str], at: usize, before: &mut Vec<&'a str>, paths: &mut Vec<Vec<&'a str>>) -> usize {
    let depth = before.len();
    let mut next = at;
    while let Some(token) = tokens.get(next) {
        if *token == "{" {
            next += 1;
            while tokens.get(next).is_some_and(|token| *token != "}") {
                next = expand(tokens, next, before, paths);
                next += usize::from(tokens.get(next) == Some(&","));
            }
            before.truncate(depth);
            return next + 1;
        }
        before.push(token);
        next += 1;
        if tokens.get(next) != Some(&"::") {
            break;
        }
        next += 1;
    }
    paths.push(before.clone());
    before.truncate(depth);
    // A new name for it: `as name`.
    next + if tokens.get(next) == Some(&"as") { 2 } else { 0 }
}

/// The sets of files of which each leads to each other.
pub(crate) fn circles(imports: &Imports) -> Vec<Vec<String>> {
    let reach: BTreeMap<&String, BTreeSet<&String>> =
        imports.keys().map(|file| (file, reached(imports, file))).collect();
    let mut found = BTreeSet::new();
    for (file, far) in &reach {
        if far.contains(file) {
            let back = |other: &&&String| reach.get(**other).is_some_and(|far| far.contains(file));
            found.insert(far.iter().filter(back).map(|other| (*other).clone()).collect::<Vec<_>>());
        }
    }
    found.into_iter().collect()
}

/// The files that a file leads to, itself only where a circle leads back.
fn reached<'a>(imports: &'a Imports, file: &String) -> BTreeSet<&'a String> {
    let mut reached = BTreeSet::new();
    let mut open: Vec<&String> = imports.get(file).into_iter().flatten().collect();
    while let Some(next) = open.pop() {
        if reached.insert(next) {
            open.extend(imports.get(next).into_iter().flatten());
        }
    }
    reached
}
