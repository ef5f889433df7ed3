//! The naive batch computation of the login job: what tests compare the engine with.
//!
//! Written from `SEMANTICS.md` alone and sharing no code with the engine, so that an error has to be made twice to
//! go unseen. It prefers the wording of the rules over speed: a detector at a login looks back over the list of logins
//! before it and keeps no state.
//!
//! ```text
//! case (events, geography) + bindings
//!   -> intake: each record is a dead letter, late, or accepted; the watermark is computed and must be as recorded
//!   -> final:  rules(released logins), each said in the epoch that releases its login
//!      eager:  rules(accepted so far) after each epoch, less what was said before
//! ```
//!
//! Results depend on the case and the bindings alone. It refuses (with `Err`, never with a guess) bindings that break
//! the rules: an epoch that does not rise, an end that falls, a watermark other than the computed one, a partition
//! declared idle too early.

mod bindings;
mod case;
mod check;
mod compare;
mod detectors;
mod emission;
mod geography;
mod intake;
mod time;

pub use bindings::{BindingRow, coverage, parse_bindings};
pub use case::{Case, Event, EventLine, Record};
pub use check::{check_eager, net};
pub use compare::{canonical, compare, compare_per_user};
pub use time::{format_time, parse_time};

use serde_json::Value;

/// The topic that every case is about.
pub const TOPIC: &str = "login-events";

/// When a login and its anomalies are said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emission {
    /// In the epoch that accepts it, taken back if a later epoch shows it to be wrong.
    Eager,
    /// In the epoch that releases it, once.
    Final,
}

/// An output row and the epoch that says it (which not every row holds as a field).
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The epoch that says it.
    pub epoch: u64,
    /// The row as it stands in the topic, without `raw` for dead letters.
    pub value: Value,
}

/// What the login job writes, in the order in which it is said.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outputs {
    /// `login-events-enriched`: in login order within an epoch.
    pub enriched: Vec<Row>,
    /// `login-anomalies`: within an epoch in login order, then detector order, withdrawn before raised.
    pub anomalies: Vec<Row>,
    /// `login-events-late`: within an epoch by partition and offset.
    pub late: Vec<Row>,
    /// `login-events-dlq`: within an epoch by partition and offset; without `raw`.
    pub dlq: Vec<Row>,
}

impl Outputs {
    /// The four topics by name, in the order of `SEMANTICS.md`.
    pub fn topics(&self) -> [(&'static str, &[Row]); 4] {
        [
            ("login-events-enriched", &self.enriched),
            ("login-anomalies", &self.anomalies),
            ("login-events-late", &self.late),
            ("login-events-dlq", &self.dlq),
        ]
    }
}

/// What the login job must have written for these epochs.
///
/// Records beyond the last row's `ends` are not read: [`coverage`] tells whether there are any.
///
/// # Errors
/// When the bindings break a rule of `SEMANTICS.md` or record another watermark than the computed one.
pub fn run(case: &Case, bindings: &[BindingRow], emission: Emission) -> Result<Outputs, String> {
    let intake = intake::intake(case, bindings)?;
    let (enriched, anomalies) = match emission {
        Emission::Eager => emission::eager(&intake.accepted),
        Emission::Final => emission::last(&intake.accepted),
    };
    Ok(Outputs { enriched, anomalies, late: intake.late, dlq: intake.dlq })
}
