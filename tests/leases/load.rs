//! What leases save, and what they waste.

use crate::world::{SECOND, Setting, run};

const LOADS: [f64; 4] = [0.3, 0.9, 2.0, 10.0];
const HOLDS: [u64; 3] = [50, 200, 500];

/// Prints the calls for each decision that is offered, and the part of the possible that is
/// admitted: `cargo test --all-features --test leases table -- --nocapture`.
#[test]
fn the_table_of_calls_by_load_and_hold_time() {
    println!("calls per offered decision (admitted of the possible, calls a second)");
    for hold in HOLDS {
        print!("H = {hold:3} ms |");
        for load in LOADS {
            let mut outcome = run(&Setting::quiet(1_000, 2_000, hold, load), 1);
            let calls = outcome.calls as f64 / outcome.offered as f64;
            let admitted = outcome.oracle.total() as f64 / outcome.ideal as f64;
            let steady = outcome.oracle.between(5 * SECOND, 20 * SECOND) as f64
                / (outcome.offered_units as f64 / 20.0).min(1_000.0)
                / 15.0;
            let worst = outcome.oracle.worst(outcome.quota, 2_000);
            print!(
                " {load:4}x: {calls:.3} ({:.1} %, steady {:.1} %, {:.0}/s, worst {worst}) |",
                100.0 * admitted,
                100.0 * steady,
                outcome.calls as f64 / 20.0
            );
        }
        println!();
    }
}
