//! What a detector says of a login.
//!
//! Everything here is compared by value: eager emission says the difference between two lists of findings.

use super::Texts;
use dataflow_core::{Micros, Position};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use std::sync::Arc;

/// The logins a finding rests on, in login order. Most detectors name one or two.
pub type Evidence = SmallVec<[Position; 2]>;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Severity {
    /// Worth a note.
    Low,
    /// Worth a look.
    Medium,
    /// Likely an attack.
    High,
    /// Likely a successful one.
    Critical,
}

impl Severity {
    /// Its name in the rows.
    pub fn name(self) -> &'static str {
        match self {
            Severity::Low => "low",
            Severity::Medium => "medium",
            Severity::High => "high",
            Severity::Critical => "critical",
        }
    }
}

/// What a detector knows beyond the login itself: the row's `detail`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Detail {
    /// Nothing.
    None,
    /// Impossible travel.
    Travel {
        /// Great-circle distance, rounded to whole kilometres.
        distance_km: i64,
        /// Time between the two logins.
        elapsed_us: i64,
    },
    /// A success that follows a brute force.
    Escalates {
        /// The login at which the brute force fired.
        high: Position,
    },
    /// Credential stuffing.
    Stuffing {
        /// The address as the login spells it.
        ip: Box<str>,
        /// Distinct users in the window.
        users: u64,
        /// The window's start.
        window_start: Micros,
    },
    /// A device that was not seen before.
    Device {
        /// The login's device.
        device: Box<str>,
        /// The login's platform.
        platform: Box<str>,
    },
    /// A burst of logins.
    Burst {
        /// Logins in the session so far.
        logins: u64,
        /// The session's first login.
        session_start: Micros,
        /// How many earlier sessions it was compared with.
        sessions: u64,
    },
}

/// A detector's answer for one login.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// How bad it is.
    pub severity: Severity,
    /// What it rests on.
    pub evidence: Evidence,
    /// What else is known.
    pub detail: Detail,
}

/// A verdict with the login and the detector it belongs to: all that an anomaly's row says but for who says it when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The detector's rank in [`DETECTORS`](super::DETECTORS).
    pub detector: u16,
    /// The login's time.
    pub time: Micros,
    /// The login's position.
    pub position: Position,
    /// The login's user.
    pub user: Texts<1>,
    /// The login's country.
    pub country: Option<Arc<str>>,
    /// How bad it is.
    pub severity: Severity,
    /// What it rests on.
    pub evidence: Evidence,
    /// What else is known.
    pub detail: Detail,
}

impl Finding {
    /// What findings of one user are ordered by: the login, then the detector.
    pub fn order(&self) -> (Micros, Position, u16) {
        (self.time, self.position, self.detector)
    }
}

/// Whether a finding is being said or taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// It holds from now on.
    Raised,
    /// It no longer holds.
    Withdrawn,
}

impl Status {
    /// Its name in the rows.
    pub fn name(self) -> &'static str {
        match self {
            Status::Raised => "raised",
            Status::Withdrawn => "withdrawn",
        }
    }
}
