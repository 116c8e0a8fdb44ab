//! Crashes and panics on purpose, for the tests of crashes. They are in a binary only where it is
//! built with the feature `failpoints`, which cargo switches on for tests and never for
//! `cargo build`; without it the calls below are empty.
//!
//! A process reads what is to happen from `PLIMSOLL_FAILPOINT` when its first step begins:
//!
//! | value | what happens |
//! | --- | --- |
//! | `crash-before-step=3` | it aborts when the third step has been noted, and before it has an effect |
//! | `crash-after-step=3` | it aborts when a third step has had its effect, and before anybody hears of it |
//! | `crash-before=start` | the same at the first step of that kind |
//! | `crash-after=start` | |
//! | `panic-in-app=production/web` | each step of that app panics |
//! | `each-step=twice` | each step's effect is had twice, one after the other |

/// On which side of a step's effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Before,
    After,
}

/// Passes by a step of this kind, of this app.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub fn pass<A>(_side: Side, _kind: &str, _app: Option<&A>) {}

/// True where each step is to be done twice.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub fn twice() -> bool {
    false
}

#[cfg(feature = "failpoints")]
pub use planted::{pass, twice};

#[cfg(feature = "failpoints")]
mod planted {
    use std::fmt::Display;
    use std::str::FromStr;
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::Side;

    const VARIABLE: &str = "PLIMSOLL_FAILPOINT";

    /// Where the process ends, or an app's work does.
    #[derive(Debug, PartialEq, Eq)]
    enum Failpoint {
        CrashAtStep(Side, usize),
        CrashAtKind(Side, String),
        PanicInApp(String),
        Twice,
    }

    static PLANTED: LazyLock<Option<Failpoint>> = LazyLock::new(|| {
        let text = std::env::var(VARIABLE).ok()?;
        Some(text.parse().unwrap_or_else(|wrong| panic!("{wrong}")))
    });

    impl FromStr for Failpoint {
        type Err = String;

        fn from_str(text: &str) -> Result<Self, String> {
            let wrong = || format!("{VARIABLE}={text}: see src/failpoint.rs for what it may be");
            let (name, value) = text.split_once('=').ok_or_else(wrong)?;
            let number = || value.parse().map_err(|_| wrong());
            Ok(match name {
                "crash-before-step" => Self::CrashAtStep(Side::Before, number()?),
                "crash-after-step" => Self::CrashAtStep(Side::After, number()?),
                "crash-before" => Self::CrashAtKind(Side::Before, value.to_owned()),
                "crash-after" => Self::CrashAtKind(Side::After, value.to_owned()),
                "panic-in-app" => Self::PanicInApp(value.to_owned()),
                "each-step" if value == "twice" => Self::Twice,
                _ => return Err(wrong()),
            })
        }
    }

    impl Failpoint {
        fn is_crash_at(&self, passed: (Side, usize), kind: &str) -> bool {
            match self {
                Self::CrashAtStep(side, number) => (*side, *number) == passed,
                Self::CrashAtKind(side, of) => *side == passed.0 && of == kind,
                Self::PanicInApp(_) | Self::Twice => false,
            }
        }
    }

    /// Passes by a step of this kind, of this app.
    pub fn pass<A: Display>(side: Side, kind: &str, app: Option<&A>) {
        static BEGUN: AtomicUsize = AtomicUsize::new(0);
        static ENDED: AtomicUsize = AtomicUsize::new(0);
        let Some(planted) = &*PLANTED else { return };
        let steps = if side == Side::Before { &BEGUN } else { &ENDED };
        let number = steps.fetch_add(1, Ordering::Relaxed) + 1;
        if planted.is_crash_at((side, number), kind) {
            std::process::abort();
        }
        if let (Failpoint::PanicInApp(of), Some(app)) = (planted, app)
            && *of == app.to_string()
        {
            panic!("{VARIABLE} says so");
        }
    }

    /// True where each step is to be done twice.
    pub fn twice() -> bool {
        *PLANTED == Some(Failpoint::Twice)
    }

    #[test]
    fn a_failpoint_is_read_or_refused() {
        for (text, expected) in [
            ("crash-before-step=3", Failpoint::CrashAtStep(Side::Before, 3)),
            ("crash-after=start", Failpoint::CrashAtKind(Side::After, "start".into())),
            ("panic-in-app=production/web", Failpoint::PanicInApp("production/web".into())),
            ("each-step=twice", Failpoint::Twice),
        ] {
            assert_eq!(text.parse(), Ok(expected));
        }
        for wrong in ["", "crash", "crash-before-step=x", "crash-there=1", "each-step=1"] {
            assert!(wrong.parse::<Failpoint>().is_err(), "{wrong}");
        }
        let third = Failpoint::CrashAtStep(Side::Before, 3);
        assert!(third.is_crash_at((Side::Before, 3), "start"));
        assert!(!third.is_crash_at((Side::After, 3), "start"));
        assert!(!third.is_crash_at((Side::Before, 2), "start"));
    }
}
