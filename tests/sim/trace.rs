//! What happened in a run, line by line, and a hash over it: the same seed gives the same hash.

/// The lines of a run.
#[derive(Debug, Clone)]
pub struct Trace {
    hash: u64,
    lines: Vec<String>,
    /// Keep the lines, for people.
    pub kept: bool,
}

impl Default for Trace {
    fn default() -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, lines: Vec::new(), kept: false }
    }
}

impl Trace {
    pub fn tell(&mut self, millis: u64, text: impl FnOnce() -> String) {
        let text = text();
        for byte in millis.to_le_bytes().iter().chain(text.as_bytes()) {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if self.kept {
            self.lines.push(format!("{:>9.3} {text}", millis as f64 / 1000.0));
        }
    }

    /// FNV-1a over all lines and their times.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    pub fn lines(&self) -> &[String] {
        &self.lines
    }
}
