//! The core at the size that the design names: 10,000 apps with 100,000 containers on 1,000
//! hosts behind one HAProxy. Prints a table with each bound and whether it held; the same table,
//! with the machine's size, is in the book. `make bench` runs it in release mode.

#[path = "../tests/fleet_model/mod.rs"]
mod fleet_model;

use std::time::{Duration, Instant};

use fleet_model::Model;
use plimsoll::manifest::Reader;
use plimsoll::plan::Planner;
use plimsoll::proxy;

/// How often each figure is measured; the median counts.
const ROUNDS: usize = 11;

fn main() {
    let mut table = Table::default();
    planning(&mut table);
    reading(&mut table);
    rendering(&mut table);
    table.end();
}

fn planning(table: &mut Table) {
    let small = Model::converged(10, 10);
    let large = Model::converged(10_000, 10);
    let fleet = "10,000 apps, 100,000 containers";
    table.row(&format!("first plan of a converged fleet, {fleet}"), Some(50.0), || {
        assert!(Planner::default().plan(&large.input()).is_empty());
    });
    let mut planner = Planner::default();
    planner.plan(&large.input());
    table.row(&format!("the next plan of it, {fleet}"), Some(50.0), || {
        assert!(planner.plan(&large.input()).is_empty());
    });
    let of_large = one_app_changes(table, "10,000 apps", large, Some(5.0));
    let of_small = one_app_changes(table, "10 apps", small, None);
    table.ratio("plan after one app changed, 10,000 apps to 10", of_large / of_small, 2.0);
}

/// Plans two commits in turn that differ in one app. Returns the median in milliseconds.
fn one_app_changes(table: &mut Table, what: &str, model: Model, bound: Option<f64>) -> f64 {
    let mut planner = Planner::default();
    planner.plan(&model.input());
    let commits = [model.clone().with_one_app_changed(), model];
    let mut number = 0;
    table.row(&format!("plan after one app changed, {what}"), bound, || {
        let is_empty = planner.plan(&commits[number % 2].input()).is_empty();
        assert_eq!(is_empty, number % 2 == 1);
        assert_eq!(planner.planned().len(), 1);
        number += 1;
    })
}

fn reading(table: &mut Table) {
    let files = Model::files(10_000);
    table.row("reading 10,000 manifests", Some(1000.0), || {
        assert!(Reader::new().read(&files).desired.is_some());
    });
    let mut reader = Reader::new();
    reader.read(&files);
    let mut number = 0;
    table.row("reading again with one manifest changed", None, || {
        number += 1;
        let changed = Model::with_one_file_changed(&files, number);
        assert_eq!(reader.read(&changed).files_parsed, 1);
    });
}

fn rendering(table: &mut Table) {
    let model = Model::converged(2_500, 4);
    let (config, places) = (model.proxy_config(), Model::places());
    table.row("rendering 10,000 servers", Some(50.0), || {
        assert!(proxy::render(&config, &places).is_ok());
    });
}

/// Figures with their bounds.
#[derive(Default)]
struct Table {
    missed: usize,
}

impl Table {
    /// Measures `work` and prints a line. `bound` in milliseconds.
    #[allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
    fn row(&mut self, what: &str, bound: Option<f64>, mut work: impl FnMut()) -> f64 {
        let mut times: Vec<Duration> = (0..ROUNDS)
            .map(|_| {
                let begin = Instant::now();
                work();
                begin.elapsed()
            })
            .collect();
        times.sort();
        let millis = |time: Duration| time.as_secs_f64() * 1000.0;
        let median = millis(times[ROUNDS / 2]);
        let verdict = match bound {
            None => String::new(),
            Some(bound) if median < bound => format!("< {bound:.0} ms: held"),
            Some(bound) => {
                self.missed += 1;
                format!("< {bound:.0} ms: MISSED")
            }
        };
        println!(
            "{what:<62} {median:>9.2} ms (min {:.2}, max {:.2})  {verdict}",
            millis(times[0]),
            millis(times[ROUNDS - 1])
        );
        median
    }

    fn ratio(&mut self, what: &str, ratio: f64, bound: f64) {
        let held = ratio <= bound;
        self.missed += usize::from(!held);
        let verdict = if held { "held" } else { "MISSED" };
        println!("{what:<62} {ratio:>9.2} times  at most {bound:.0}: {verdict}");
    }

    fn end(&self) {
        println!("{} bounds missed", self.missed);
    }
}
