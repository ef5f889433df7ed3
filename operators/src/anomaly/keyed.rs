//! Detectors as the rules of a keyed history: logins by user, or by the address they come from.

use super::{DETECTORS, Detectors, Finding, Login};
use crate::window::key_state::Rules;
use dataflow_core::{Micros, Position, Stamped};
use std::net::IpAddr;

/// Detectors over the logins of a user.
#[derive(Clone, Debug)]
pub struct ByUser<D>(pub D);

/// Detectors over the logins from an address. Logins whose `ip` is none are not looked at.
#[derive(Clone, Debug)]
pub struct ByAddress<D>(pub D);

impl<D: Detectors> Rules for ByUser<D> {
    type Event = Login;
    type History = D::History;
    type Finding = Finding;

    fn key(&self, event: &Login, out: &mut Vec<u8>) -> bool {
        out.extend_from_slice(event.user_id().as_bytes());
        true
    }

    fn same(&self, one: &Login, other: &Login) -> bool {
        one.same_event(other)
    }

    fn step(&self, history: &mut D::History, event: &Stamped<Login>, findings: &mut Vec<Finding>) {
        self.0.step(history, event, findings);
    }

    fn expires(&self, history: &D::History) -> Micros {
        self.0.expires(history)
    }

    fn about(&self, finding: &Finding) -> (Micros, Position) {
        (finding.time, finding.position)
    }

    fn label(&self, finding: &Finding) -> &'static str {
        DETECTORS[usize::from(finding.detector)].0
    }

    fn event_weight(&self, event: &Login) -> usize {
        weight(event)
    }
}

impl<D: Detectors> Rules for ByAddress<D> {
    type Event = Login;
    type History = D::History;
    type Finding = Finding;

    fn key(&self, event: &Login, out: &mut Vec<u8>) -> bool {
        match event.address {
            Some(IpAddr::V4(address)) => out.extend_from_slice(&address.octets()),
            Some(IpAddr::V6(address)) => out.extend_from_slice(&address.octets()),
            None => return false,
        }
        true
    }

    fn same(&self, one: &Login, other: &Login) -> bool {
        one.same_event(other)
    }

    fn step(&self, history: &mut D::History, event: &Stamped<Login>, findings: &mut Vec<Finding>) {
        self.0.step(history, event, findings);
    }

    fn expires(&self, history: &D::History) -> Micros {
        self.0.expires(history)
    }

    fn about(&self, finding: &Finding) -> (Micros, Position) {
        (finding.time, finding.position)
    }

    fn label(&self, finding: &Finding) -> &'static str {
        DETECTORS[usize::from(finding.detector)].0
    }

    fn key_text(&self, key: &[u8]) -> String {
        let address = match (<[u8; 4]>::try_from(key), <[u8; 16]>::try_from(key)) {
            (Ok(octets), _) => IpAddr::from(octets),
            (_, Ok(octets)) => IpAddr::from(octets),
            _ => return key.escape_ascii().to_string(),
        };
        address.to_string()
    }

    fn event_weight(&self, event: &Login) -> usize {
        weight(event)
    }
}

fn weight(login: &Login) -> usize {
    size_of::<Stamped<Login>>() + login.text_bytes()
}
