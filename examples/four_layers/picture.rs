//! The drawing: a column for each tenth of a second, one scale for everything.

use std::{
    env,
    fmt::Write,
    io::{self, IsTerminal},
    time::Duration,
};

use tower_quota::time::Timestamp;

use crate::{
    Layer,
    promises::Verdict,
    server::Visit,
    stream::{LENGTH, STREAM},
};

const COLUMN: Duration = Duration::from_millis(100);
const COLUMNS: usize = (LENGTH.as_millis() / COLUMN.as_millis()) as usize;
/// What stands to the left of the columns.
const GUTTER: usize = 10;
/// Requests in a row of a bar.
const ROW: usize = 5;

type Counts = [usize; COLUMNS];

pub(crate) struct Picture {
    colors: bool,
}

#[derive(Clone, Copy)]
enum Ink {
    Bold = 1,
    Dim = 2,
    Red = 31,
    Green = 32,
    Yellow = 33,
    Blue = 34,
}

impl Picture {
    /// Colors, if there is somebody to see them who wants them.
    pub(crate) fn for_stdout() -> Self {
        let is_wanted = env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { colors: is_wanted && io::stdout().is_terminal() }
    }

    /// What will be sent.
    pub(crate) fn of_stream(&self) -> String {
        let counts = counted(STREAM.iter().flat_map(|phase| phase.times()));
        let mut out = String::new();
        let title = "One stream of requests for four layers of 10 a second";
        self.title(&mut out, title, "", "█ 0.1 s  ╶────────╴ 1 s");
        self.bars(&mut out, "sent", &counts, Ink::Blue);
        self.axis(&mut out);
        self.phases(&mut out);
        out
    }

    /// What a layer made of it.
    pub(crate) fn of_layer(
        &self,
        layer: &Layer,
        visits: &[Visit],
        start: Timestamp,
        verdicts: &[Verdict],
    ) -> String {
        let since_start = |at: Timestamp| at.saturating_since(start);
        let started = counted(visits.iter().filter_map(|visit| visit.started.map(since_start)));
        let refused = visits.iter().filter(|visit| visit.started.is_none());
        let refused = counted(refused.map(|visit| since_start(visit.arrived)));
        let waiting = waiting(visits, start);
        let delays = waiting.iter().any(|count| *count > 1);

        let mut out = String::new();
        let (admitted, denied) = (started.iter().sum::<usize>(), refused.iter().sum::<usize>());
        let totals = format!("{admitted} admitted, {denied} refused");
        self.title(&mut out, layer.title, layer.character, &totals);
        if delays {
            self.bars(&mut out, "waiting", &waiting, Ink::Yellow);
        }
        self.bars(&mut out, if delays { "started" } else { "admitted" }, &started, Ink::Green);
        self.axis(&mut out);
        self.hanging_bars(&mut out, "refused", &refused, Ink::Red);
        self.verdicts(&mut out, verdicts);
        out
    }

    /// What was the same for all layers.
    pub(crate) fn of_all(&self, verdicts: &[Verdict]) -> String {
        let mut out = String::new();
        self.title(&mut out, "All four", "", "");
        self.verdicts(&mut out, verdicts);
        out
    }

    fn title(&self, out: &mut String, title: &str, subtitle: &str, right: &str) {
        let gap = (GUTTER + COLUMNS).saturating_sub(title.len() + 2 + subtitle.len());
        let title = self.ink(Ink::Bold, title);
        let line = format!("{title}  {subtitle}{}", self.ink(Ink::Dim, &format!("{right:>gap$}")));
        _ = writeln!(out, "\n{}", line.trim_end());
    }

    fn verdicts(&self, out: &mut String, verdicts: &[Verdict]) {
        for verdict in verdicts {
            let (ink, word) = if verdict.kept { (Ink::Green, "OK") } else { (Ink::Red, "BROKEN") };
            let word = self.ink(ink, &format!("{word:>8}"));
            _ = writeln!(out, "{word}  {:<39}  {}", verdict.promise, verdict.measured);
        }
    }

    /// Bars that stand on the axis.
    fn bars(&self, out: &mut String, name: &str, counts: &Counts, ink: Ink) {
        const EIGHTHS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
        let rows = rows(counts);
        for row in (0..rows).rev() {
            let label = if row == 0 { name.into() } else { ((row + 1) * ROW).to_string() };
            let cells = counts.iter().map(|count| {
                let above = count.saturating_sub(row * ROW).min(ROW);
                EIGHTHS[(above * 8).div_ceil(ROW)]
            });
            self.row(out, &label, &cells.collect::<String>(), ink);
        }
    }

    /// Bars that hang from it.
    fn hanging_bars(&self, out: &mut String, name: &str, counts: &Counts, ink: Ink) {
        for row in 0..rows(counts) {
            let label = if row == 0 { name.into() } else { ((row + 1) * ROW).to_string() };
            let cells = counts.iter().map(|count| match count.saturating_sub(row * ROW) {
                0 => ' ',
                1..=3 => '▀',
                _ => '█',
            });
            self.row(out, &label, &cells.collect::<String>(), ink);
        }
    }

    fn row(&self, out: &mut String, label: &str, cells: &str, ink: Ink) {
        let gutter = self.ink(Ink::Dim, &format!("{label:>8} │"));
        _ = writeln!(out, "{gutter}{}", self.ink(ink, cells.trim_end()));
    }

    /// A line for each second: the fixed window's windows.
    fn axis(&self, out: &mut String) {
        let lines = (0..COLUMNS).map(|column| match column % 10 {
            0 => '╶',
            9 => '╴',
            _ => '─',
        });
        let axis = format!("{:>GUTTER$}{}", "┼", lines.collect::<String>());
        _ = writeln!(out, "{}", self.ink(Ink::Dim, &axis));
    }

    fn phases(&self, out: &mut String) {
        let mut line = String::new();
        for phase in STREAM.iter().filter(|phase| !phase.text.is_empty()) {
            let column = (phase.from.as_millis() / COLUMN.as_millis()) as usize;
            _ = write!(line, "{:width$}", "", width = column.saturating_sub(line.len()));
            line.push_str(phase.text);
        }
        _ = writeln!(out, "{:GUTTER$}{}", "", self.ink(Ink::Blue, &line));
    }

    fn ink(&self, ink: Ink, text: &str) -> String {
        if self.colors { format!("\x1b[{}m{text}\x1b[0m", ink as u8) } else { text.into() }
    }
}

/// How many of these times lie in each column.
fn counted(times: impl Iterator<Item = Duration>) -> Counts {
    let mut counts = [0; COLUMNS];
    for time in times {
        let column = (time.as_nanos() / COLUMN.as_nanos()) as usize;
        counts[column.min(COLUMNS - 1)] += 1;
    }
    counts
}

/// How many were waiting for their turn at the end of each column.
fn waiting(visits: &[Visit], start: Timestamp) -> Counts {
    std::array::from_fn(|column| {
        let end = start.saturating_add(COLUMN * (column as u32 + 1));
        let is_waiting = |visit: &&Visit| {
            visit.arrived < end && visit.started.is_some_and(|started| started >= end)
        };
        visits.iter().filter(is_waiting).count()
    })
}

fn rows(counts: &Counts) -> usize {
    counts.iter().max().map_or(1, |most| most.div_ceil(ROW)).max(1)
}
