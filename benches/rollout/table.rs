//! Figures with their bounds.

use std::time::Duration;

/// Prints a line for each figure, and counts the bounds that were missed.
#[derive(Default)]
pub struct Table {
    missed: usize,
}

impl Table {
    /// A figure; with a bound it has to be at most that.
    pub fn line(&mut self, what: &str, value: f64, unit: &str, bound: Option<f64>) {
        let verdict = match bound {
            None => String::new(),
            Some(bound) if value <= bound => format!("at most {bound}{unit}: held"),
            Some(bound) => {
                self.missed += 1;
                format!("at most {bound}{unit}: MISSED")
            }
        };
        println!("{what:<56} {value:>9.2} {unit:<2}  {verdict}");
    }

    pub fn end(&self) {
        println!("{} bounds missed", self.missed);
    }
}

/// The one in the middle; of an even number the mean of the two there.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

pub fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
