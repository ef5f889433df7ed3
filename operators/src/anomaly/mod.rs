//! Login anomalies: what a login is, the detectors that judge one, and the rows that say so.
//!
//! Pure functions throughout: the keyed history of `window` owns state, order and emission. A new detector is one file
//! here and one line in [`DETECTORS`].

pub mod brute_force;
pub mod burst;
pub mod credential_stuffing;
pub mod deliver;
pub mod detector;
pub mod finding;
pub mod impossible_travel;
pub mod keyed;
pub mod login;
pub mod new_country;
pub mod new_device;
pub mod rows;
pub mod seen;
mod texts;
pub mod unresolved_address;

#[cfg(test)]
mod case_tests;
#[cfg(test)]
mod check;

pub use brute_force::BruteForce;
pub use burst::Burst;
pub use credential_stuffing::CredentialStuffing;
pub use detector::{DETECTORS, Detector, Detectors, History};
pub use finding::{Detail, Evidence, Finding, Severity, Status, Verdict};
pub use impossible_travel::ImpossibleTravel;
pub use keyed::{ByAddress, ByUser};
pub use login::{LOGIN_EVENT_SCHEMA, Login, LoginEvent};
pub use new_country::NewCountry;
pub use new_device::NewDevice;
pub use texts::Texts;
pub use unresolved_address::UnresolvedAddress;
