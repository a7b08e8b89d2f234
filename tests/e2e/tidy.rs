//! The source keeps its own rules: claims and their meaning, boundaries between crates, effects in their home.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use tests::cni::workspace;

/// Crates that are no plugin.
const LIBRARIES: [&str; 5] = [
    "cni-spec",
    "cni-plugin",
    "cni-net",
    "cni-plugins",
    "cni-bench",
];

/// What only the shell, `cni-plugin`, does for a plugin.
const EFFECTS: [&str; 7] = [
    "std::env",
    "env::var",
    "io::stdout",
    "Command::new",
    "process::Command",
    "process::exit",
    "process::abort",
];

/// Letters that behaviours have ids with.
const LETTERS: &str = "PBMLHAGCFTNIOK";

#[test]
fn every_behaviour_that_a_test_claims_has_a_line_and_every_line_a_claim() {
    let (meant, claimed) = (meant(), claimed());
    let unexplained: Vec<_> = claimed.difference(&meant).collect();
    assert!(
        unexplained.is_empty(),
        "no line in tests/behaviours.md says what these mean: {unexplained:?}"
    );
    let unclaimed: Vec<_> = meant.difference(&claimed).collect();
    assert!(
        unclaimed.is_empty(),
        "no test claims these lines of tests/behaviours.md: {unclaimed:?}"
    );
}

#[test]
fn only_cni_net_knows_the_kernel() {
    for name in crates()
        .iter()
        .filter(|it| !["cni-net", "cni-bench"].contains(&it.as_str()))
    {
        for dependency in dependencies(name) {
            let kernel = ["nix", "tokio", "iptables", "rtnetlink"].contains(&dependency.as_str());
            assert!(
                !kernel && !dependency.starts_with("netlink-"),
                "{name} depends on {dependency}"
            );
        }
    }
}

#[test]
fn plugins_meet_through_delegation_only() {
    let plugins = plugins();
    for name in crates()
        .iter()
        .filter(|it| !["cni-plugins", "cni-bench"].contains(&it.as_str()))
    {
        for dependency in dependencies(name) {
            assert!(
                !plugins.contains(&dependency),
                "{name} depends on {dependency}"
            );
        }
    }
    assert!(
        !dependencies("cni-spec")
            .iter()
            .any(|it| it.starts_with("cni-")),
        "cni-spec knows its users"
    );
}

#[test]
fn the_top_level_is_short() {
    let expected = [
        "Cargo.lock",
        "Cargo.toml",
        "Makefile",
        "README.md",
        "conf",
        "crates",
        "target",
        "tests",
    ];
    for entry in fs::read_dir(workspace()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(
            name.starts_with('.') || expected.contains(&name.as_str()),
            "{name} has no place at the top"
        );
    }
}

#[test]
fn plugins_leave_streams_environment_and_processes_to_the_shell() {
    for name in plugins() {
        for file in rust_files(&workspace().join("crates").join(&name).join("src")) {
            if is_test_file(&file) {
                continue;
            }
            let text = fs::read_to_string(&file).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap();
            for (number, line) in code.lines().enumerate() {
                let line = line.split("//").next().unwrap();
                let line = line.replace("std::env::consts", ""); // known when it is compiled
                let effect = EFFECTS.iter().find(|it| line.contains(**it)).copied();
                let effect = effect.or_else(|| prints(&line).then_some("print"));
                assert!(
                    effect.is_none(),
                    "{}:{}: {effect:?}",
                    file.display(),
                    number + 1
                );
            }
        }
    }
}

/// `print!` or `println!`, but not `eprintln!`.
fn prints(line: &str) -> bool {
    ["print!", "println!"].iter().any(|name| {
        let before = line.find(name).map(|at| line[..at].chars().next_back());
        before.is_some_and(|it| it.is_none_or(|it| !it.is_alphanumeric() && it != '_'))
    })
}

/// Ids with a line in `behaviours.md`.
fn meant() -> BTreeSet<String> {
    let text = fs::read_to_string(workspace().join("tests/behaviours.md")).unwrap();
    let mut ids = BTreeSet::new();
    for line in text.lines().filter_map(|it| it.strip_prefix("- ")) {
        let (id, meaning) = line
            .split_once(": ")
            .unwrap_or_else(|| panic!("no id: {line}"));
        assert!(is_id(id) && meaning.len() > 10, "{line}");
        assert!(ids.insert(id.to_owned()), "{id} has two lines");
    }
    ids
}

/// Ids in names of functions and in comments of test code.
fn claimed() -> BTreeSet<String> {
    let mut ids = BTreeSet::new();
    for file in ["crates", "tests"]
        .iter()
        .flat_map(|it| rust_files(&workspace().join(it)))
    {
        let text = fs::read_to_string(&file).unwrap();
        let tests = match is_test_file(&file) {
            true => text.as_str(),
            false => text.split_once("#[cfg(test)]").map_or("", |it| it.1),
        };
        for line in tests.lines() {
            let (code, comment) = line.split_once("//").unwrap_or((line, ""));
            let comment = comment.split(|it: char| !it.is_alphanumeric());
            ids.extend(comment.filter(|it| is_id(it)).map(str::to_owned));
            if let Some((_, name)) = code.split_once("fn ") {
                let name = name.split('(').next().unwrap();
                let words = name
                    .split('_')
                    .filter(|it| it.starts_with(|it: char| it.is_lowercase()));
                ids.extend(words.map(str::to_uppercase).filter(|it| is_id(it)));
            }
        }
    }
    ids
}

fn is_id(word: &str) -> bool {
    word.len() == 3
        && word.starts_with(|it| LETTERS.contains(it))
        && word[1..].bytes().all(|it| it.is_ascii_digit())
}

/// A file of tests, or a folder of them.
fn is_test_file(path: &Path) -> bool {
    let relative = path.strip_prefix(workspace()).unwrap();
    let stem = relative.file_stem().unwrap();
    stem == "tests"
        || relative
            .parent()
            .unwrap()
            .components()
            .any(|it| it.as_os_str() == "tests")
}

/// The files below `dir`, this harness's own sources left out: ids there claim nothing.
fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap_or_else(|err| panic!("{}: {err}", dir.display())) {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|it| it == "rs") && !path.ends_with("e2e/tidy.rs") {
            files.push(path);
        }
    }
    files
}

fn crates() -> Vec<String> {
    let folders = fs::read_dir(workspace().join("crates"))
        .unwrap()
        .map(|it| it.unwrap());
    let mut names: Vec<String> = folders
        .filter(|it| it.path().join("Cargo.toml").is_file())
        .map(|it| it.file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert!(!names.is_empty(), "there are no crates");
    names
}

fn plugins() -> Vec<String> {
    crates()
        .into_iter()
        .filter(|it| !LIBRARIES.contains(&it.as_str()))
        .collect()
}

/// What a crate depends on, tests aside: `[dependencies]` and the like for one platform, in any spelling.
fn dependencies(name: &str) -> Vec<String> {
    let path = workspace().join("crates").join(name).join("Cargo.toml");
    let manifest = fs::read_to_string(&path).unwrap();
    let mut names = Vec::new();
    let mut inside = false;
    for line in manifest
        .lines()
        .map(|it| it.split('#').next().unwrap().trim())
    {
        if let Some(section) = line.strip_prefix('[') {
            let section = section.trim_end_matches(']');
            inside = section == "dependencies" || section.ends_with(".dependencies");
            if let Some((_, one)) = section
                .split_once("dependencies.")
                .filter(|it| !it.0.ends_with('-'))
            {
                names.push(one.to_owned());
            }
        } else if inside && !line.is_empty() {
            let name = line.split(['=', '.', ' ']).next().unwrap();
            names.push(name.trim_matches('"').to_owned());
        }
    }
    names
}
