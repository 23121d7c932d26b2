//! The floors of the house: a file uses only its own floor and those below. And its measures.

use std::{fs, path::Path};

/// From the footing to the roof. Modules in one row may use each other.
const FLOORS: &[&[&str]] = &[
    &[
        "cost",
        "decision",
        "error",
        "key",
        "maybe_ready",
        "name",
        "observe",
        "quota",
        "rejection",
        "seen_through",
        "sync",
        "time",
    ],
    &["algorithm"],
    &["backend"],
    &["limiter"],
    &["queue"],
    &["policy"],
    &["service"],
    &["adaptive", "concurrency", "layer", "reserve", "waiting"],
    &["axum", "cache", "deferred", "http", "quota_service", "reqwest", "testing", "upstream"],
];

#[test]
fn a_file_uses_only_its_own_floor_and_those_below() {
    let mut wrong = Vec::new();
    let mut files = 0;
    visit(Path::new("src"), &mut |path, text| {
        let module = path.components().nth(1).expect("a file in src").as_os_str().to_string_lossy();
        let Some(own) = floor_of(module.trim_end_matches(".rs")) else { return };
        files += 1;
        for used in uses(text) {
            let floor = floor_of(used)
                .unwrap_or_else(|| panic!("{}: `{used}` has no floor", path.display()));
            if floor > own {
                wrong.push(format!("{} uses `{used}`, which stands above it", path.display()));
            }
        }
    });
    assert!(files > 50, "only {files} files were read");
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn files_have_400_lines_at_most_and_lines_100_columns() {
    let mut wrong = Vec::new();
    visit(Path::new("src"), &mut |path, text| {
        let lines = text.lines().count();
        if lines > 400 {
            wrong.push(format!("{} has {lines} lines", path.display()));
        }
        for (number, line) in long_lines(text) {
            wrong.push(format!("{}:{number}: {line}", path.display()));
        }
    });
    assert_eq!(wrong, Vec::<String>::new());
}

/// Lines of more columns, but for what cannot be broken: a row of a table, an example, a text.
fn long_lines(text: &str) -> Vec<(usize, &str)> {
    let mut in_example = false;
    let mut long = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        let words = line.trim_start();
        let comment =
            words.starts_with("//").then(|| words.trim_start_matches(['/', '!']).trim_start());
        match comment {
            Some(fence) if fence.starts_with("```") => in_example = !in_example,
            Some(_) => {}
            None => in_example = false,
        }
        let whole = match comment {
            Some(prose) => in_example || prose.starts_with('|'),
            None => line.contains('"') || line.contains("` "),
        };
        if line.chars().count() > 100 && !whole {
            long.push((number, line));
        }
    }
    long
}

fn floor_of(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&module))
}

/// The modules in a file's `use crate::…`, one to a line as rustfmt leaves them.
fn uses(text: &str) -> Vec<&str> {
    let mut used = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        if let Some(one) = line.strip_prefix("use crate::") {
            inside = one.starts_with('{') && !one.contains('}');
            let names = one
                .trim_start_matches('{')
                .split(", ")
                .filter(|_| one.contains("::") || one.starts_with('{'));
            // `use crate::{a::X, b::Y};` on one line, or `use crate::a::{X, Y};`.
            if one.starts_with('{') {
                used.extend(names.filter(|name| name.contains("::")).map(module));
            } else {
                used.push(module(one));
            }
        } else if inside && line.starts_with('}') {
            inside = false;
        } else if inside
            && line.starts_with("    ")
            && !line.starts_with("     ")
            && !line.trim().starts_with('}')
        {
            used.push(module(line.trim()));
        }
    }
    used
}

fn module(path: &str) -> &str {
    path.split("::").next().unwrap_or(path).trim_end_matches([',', ';', '}'])
}

fn visit(folder: &Path, see: &mut impl FnMut(&Path, &str)) {
    for entry in fs::read_dir(folder).expect("the tests run in the project's folder") {
        let path = entry.expect("a folder that can be read").path();
        if path.is_dir() {
            visit(&path, see);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            see(&path, &fs::read_to_string(&path).expect("a file that can be read"));
        }
    }
}
