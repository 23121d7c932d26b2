//! What criterion measured, from its directory or from a record.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use serde_json::Value;

/// A median, with the bounds between which it lies by 95 of 100, in nanoseconds.
pub(crate) struct Figure {
    pub(crate) table: String,
    pub(crate) row: String,
    pub(crate) column: String,
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

/// The figures in criterion's directory, in the order in which they were measured.
pub(crate) fn read_criterion() -> io::Result<Vec<Figure>> {
    let mut found = Vec::new();
    collect(&criterion_directory(), &mut found)?;
    found.sort_by_key(|(measured_at, _)| *measured_at);
    Ok(found.into_iter().map(|(_, figure)| figure).collect())
}

fn criterion_directory() -> PathBuf {
    if let Some(home) = env::var_os("CRITERION_HOME") {
        return home.into();
    }
    let target = env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    target.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target")).join("criterion")
}

/// Looks for `…/new/benchmark.json` and `…/new/estimates.json`.
fn collect(directory: &Path, found: &mut Vec<(SystemTime, Figure)>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name == "new") {
            let estimates = path.join("estimates.json");
            let measured_at = fs::metadata(&estimates)?.modified()?;
            let (benchmark, estimates) =
                (read_json(&path.join("benchmark.json"))?, read_json(&estimates)?);
            found.push((measured_at, figure(&benchmark, &estimates)));
        } else if path.is_dir() {
            collect(&path, found)?;
        }
    }
    Ok(())
}

fn read_json(file: &Path) -> io::Result<Value> {
    Ok(serde_json::from_slice(&fs::read(file)?)?)
}

fn figure(benchmark: &Value, estimates: &Value) -> Figure {
    let text = |name: &str| benchmark[name].as_str().unwrap_or_default().to_owned();
    let median = &estimates["median"];
    let bounds = &median["confidence_interval"];
    let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
    Figure {
        table: text("group_id"),
        row: text("function_id"),
        column: text("value_str"),
        median: number(&median["point_estimate"]),
        low: number(&bounds["lower_bound"]),
        high: number(&bounds["upper_bound"]),
    }
}

/// A line of six columns, separated by tabs, for each figure.
pub(crate) fn to_record(figures: &[Figure]) -> String {
    let mut record = HEAD.to_owned();
    for Figure { table, row, column, median, low, high } in figures {
        record += &format!("{table}\t{row}\t{column}\t{median:.3}\t{low:.3}\t{high:.3}\n");
    }
    record
}

const HEAD: &str = "table\trow\tcolumn\tmedian_ns\tlow_ns\thigh_ns\n";

pub(crate) fn read_record(file: &Path) -> io::Result<Vec<Figure>> {
    let record = fs::read_to_string(file)?;
    // A record may begin with lines about where and when it was made.
    let lines = record.lines().filter(|line| !line.starts_with('#') && *line != HEAD.trim_end());
    lines.map(|line| parse(line).ok_or_else(|| malformed(line))).collect()
}

/// Of each figure the middle one, between the least and the greatest, in the order of the first
/// run. What only one run has stays as it is.
pub(crate) fn of_runs(runs: Vec<Vec<Figure>>) -> Vec<Figure> {
    let mut all: Vec<Vec<Figure>> = Vec::new();
    for figure in runs.into_iter().flatten() {
        match all.iter_mut().find(|same| same[0].is_of(&figure)) {
            Some(same) => same.push(figure),
            None => all.push(vec![figure]),
        }
    }
    let middle = |mut same: Vec<Figure>| {
        same.sort_by(|one, other| one.median.total_cmp(&other.median));
        let (count, least, greatest) = (same.len(), same[0].median, same[same.len() - 1].median);
        let middle = same.swap_remove((count - 1) / 2);
        if count == 1 { middle } else { Figure { low: least, high: greatest, ..middle } }
    };
    all.into_iter().map(middle).collect()
}

impl Figure {
    fn is_of(&self, other: &Self) -> bool {
        self.table == other.table && self.row == other.row && self.column == other.column
    }
}

fn parse(line: &str) -> Option<Figure> {
    let mut columns = line.split('\t');
    let mut text = || columns.next().map(str::to_owned);
    let (table, row, column) = (text()?, text()?, text()?);
    let mut number = || columns.next()?.parse().ok();
    Some(Figure { table, row, column, median: number()?, low: number()?, high: number()? })
}

fn malformed(line: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not a line of a record: {line}"))
}
