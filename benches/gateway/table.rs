//! The tables, from rounds in which each way took its turn.

use crate::{
    CROWD,
    callers::{Kind, Run},
};

/// One way, round after round.
#[derive(Default)]
pub(crate) struct Rounds(Vec<Run>);

impl Rounds {
    pub(crate) fn push(&mut self, run: Run) {
        self.0.push(run);
    }

    fn median(&self, of: impl Fn(&Run) -> f64) -> f64 {
        middle(self.0.iter().map(of).collect())
    }

    /// The median of what each round says of this way and another.
    fn beside(&self, other: &Self, of: impl Fn(&Run, &Run) -> f64) -> f64 {
        middle(self.0.iter().zip(&other.0).map(|(run, other)| of(run, other)).collect())
    }
}

/// `alone` is one caller, who feels what a call takes; `crowded` many, who take all there is.
pub(crate) fn print(kind: Kind, names: &[&str], alone: &[Rounds], crowded: &[Rounds]) {
    let (title, felt) = match kind {
        Kind::Plain => ("Plain", "the answer"),
        Kind::Streaming => ("Streaming", "its first byte"),
    };
    println!("\n## {title}\n");
    println!(
        "| way | answers a second, {CROWD} callers | × direct | × the bare proxy | one caller: µs to \
         {felt}, p50 | p99 | added, p50 | added, p99 | µs to its end, p50 |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---:|---:|");
    let felt = |run: &Run, percent| match kind {
        Kind::Plain => run.whole(percent),
        Kind::Streaming => run.first(percent),
    };
    let rate = |run: &Run, other: &Run| run.per_second() / other.per_second();
    for (way, name) in names.iter().enumerate() {
        let (alone, direct, all) = (&alone[way], &alone[0], &crowded[way]);
        let added =
            |percent| alone.beside(direct, |run, to| felt(run, percent) - felt(to, percent));
        println!(
            "| {name} | {:.0} | {:.3} | {:.3} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} |",
            all.median(Run::per_second),
            all.beside(&crowded[0], rate),
            all.beside(&crowded[1], rate),
            alone.median(|run| felt(run, 50)),
            alone.median(|run| felt(run, 99)),
            added(50),
            added(99),
            alone.median(|run| run.whole(50)),
        );
    }
}

fn middle(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_unstable_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}
