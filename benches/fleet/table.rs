//! Figures with their bounds, a line each, printed as they come.

#[derive(Default)]
pub struct Table {
    missed: usize,
}

impl Table {
    pub fn say(&self, text: &str) {
        println!("{text}");
    }

    /// What was measured, in words.
    pub fn row(&self, what: &str, measured: &str) {
        println!("{what:<66} {measured}");
    }

    /// Seconds, which have to be below a bound.
    pub fn seconds(&mut self, what: &str, seconds: f64, bound: f64) {
        let held = seconds < bound;
        self.missed += usize::from(!held);
        let verdict = if held { "held" } else { "MISSED" };
        println!("{what:<66} {seconds:.2} s  < {bound:.2} s: {verdict}");
    }

    /// What should have come and didn't.
    pub fn failed(&mut self, what: &str, why: &str) {
        self.missed += 1;
        println!("{what:<66} MISSED: {why}");
    }

    pub fn end(&self) {
        println!("{} bounds missed", self.missed);
    }
}
