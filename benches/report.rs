//! Prints Markdown tables of what criterion measured last, with ratios; or keeps it as a record.
//!
//! - `cargo bench --bench report`: tables of what is in criterion's directory,
//! - `cargo bench --bench report -- --record`: the same figures as lines for `benches/record/`,
//! - `cargo bench --bench report -- FILE…`: tables of such a record; of those of several runs the
//!   middle of what they measured, and half of how far they are apart. With `--record` as lines.
//!
//! A cell is the median in nanoseconds; behind it, against the table's reference (the first row
//! that is governor's), the ratio of the times: below 1 is faster. Where a column has a row "bare",
//! it is taken off the others.
#![expect(clippy::print_stdout, reason = "a program that prints tables")]

#[path = "support/results.rs"]
mod results;

use std::{env, io};

use self::results::Figure;

fn main() -> io::Result<()> {
    // Cargo adds `--bench`; without it this is cargo's test run.
    let arguments: Vec<String> = env::args().skip(1).collect();
    if !arguments.iter().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let files = arguments.iter().filter(|argument| !argument.starts_with("--"));
    let records: Vec<_> =
        files.map(|file| results::read_record(file.as_ref())).collect::<Result<_, _>>()?;
    let figures = match records.len() {
        0 => results::read_criterion()?,
        _ => results::of_runs(records),
    };
    if arguments.iter().any(|argument| argument == "--record") {
        print!("{}", results::to_record(&figures));
        return Ok(());
    }
    for table in in_order(figures.iter().map(|figure| figure.table.as_str())) {
        let figures: Vec<&Figure> = figures.iter().filter(|figure| figure.table == table).collect();
        print_table(table, &figures);
    }
    Ok(())
}

fn print_table(name: &str, figures: &[&Figure]) {
    let rows = in_order(figures.iter().map(|figure| figure.row.as_str()));
    let columns = in_order(figures.iter().map(|figure| figure.column.as_str()));
    let has_bare = |column: &str| figure_at(figures, BARE, column).is_some();

    println!("### {name}\n");
    print!("| ns (× the peer's) |");
    for column in &columns {
        print!(" {column}{} |", if has_bare(column) { ", above bare" } else { "" });
    }
    println!("\n|---|{}", "---:|".repeat(columns.len()));
    for row in &rows {
        print!("| {row} |");
        for column in &columns {
            print!(" {} |", cell(figures, &rows, row, column));
        }
        println!();
    }
    println!();
}

/// The name of the row that is taken off.
const BARE: &str = "bare";

fn cell(figures: &[&Figure], rows: &[&str], row: &str, column: &str) -> String {
    let Some(figure) = figure_at(figures, row, column) else {
        return "-".into();
    };
    let bare = figure_at(figures, BARE, column).filter(|_| row != BARE);
    let bare = bare.map_or(0.0, |bare| bare.median);
    let own = figure.median - bare;
    // Half of the interval in which the median lies by 95 of 100.
    let spread = (figure.high - figure.low) / 2.0;
    let shown = format!("{} ±{}", digits(own), digits(spread));

    let is_peer = |row: &&&str| row.contains("governor");
    let peer = rows.iter().filter(is_peer).find_map(|row| figure_at(figures, row, column));
    match peer {
        Some(peer) if row != BARE && peer.median > bare => {
            format!("{shown} (×{:.2})", own / (peer.median - bare))
        }
        _ => shown,
    }
}

fn figure_at<'f>(figures: &[&'f Figure], row: &str, column: &str) -> Option<&'f Figure> {
    figures.iter().find(|figure| figure.row == row && figure.column == column).copied()
}

fn digits(nanos: f64) -> String {
    match nanos.abs() {
        0.0..10.0 => format!("{nanos:.2}"),
        10.0..100.0 => format!("{nanos:.1}"),
        _ => format!("{nanos:.0}"),
    }
}

/// Each once, in the order in which they come first.
fn in_order<'n>(names: impl Iterator<Item = &'n str>) -> Vec<&'n str> {
    let mut seen = Vec::new();
    for name in names {
        if !seen.contains(&name) {
            seen.push(name);
        }
    }
    seen
}
