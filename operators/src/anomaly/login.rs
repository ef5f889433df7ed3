//! A login: as its writers send it ([`LoginEvent`]) and as the job carries it ([`Login`], with its place).
//!
//! Enrichment happens once, when the event is accepted; the place then travels with the login into state and findings.
//! Which of a record's defects counts (an empty user before a bad timestamp) is decided here.

use crate::enrich::{IpTable, Place};
use dataflow_core::{EventTime, Micros, Partition, Position, SourceId, Stamped};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::sync::Arc;

/// The reader's schema: what every writer's schema is resolved to. Writers of the first version send no `success`.
pub const LOGIN_EVENT_SCHEMA: &str = r#"{
  "type": "record",
  "name": "LoginEvent",
  "namespace": "com.shop.events",
  "fields": [
    {"name": "user_id", "type": "string"},
    {"name": "timestamp", "type": "string"},
    {"name": "ip", "type": "string"},
    {"name": "device", "type": "string"},
    {"name": "platform", "type": "string"},
    {"name": "user_agent", "type": "string"},
    {"name": "success", "type": "boolean", "default": true}
  ]
}"#;

/// A login as it came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginEvent {
    /// Whose login.
    pub user_id: String,
    /// When, as text.
    pub timestamp: String,
    /// From where, as text.
    pub ip: String,
    /// With what.
    pub device: String,
    /// On what.
    pub platform: String,
    /// Through what.
    pub user_agent: String,
    /// Whether it succeeded; true when the writer does not say.
    #[serde(default = "succeeded")]
    pub success: bool,
}

fn succeeded() -> bool {
    true
}

impl EventTime for LoginEvent {
    fn event_time(&self) -> Result<Micros, &'static str> {
        if self.user_id.is_empty() {
            return Err("empty_user_id");
        }
        Micros::parse(&self.timestamp).ok_or("bad_timestamp")
    }
}

/// A login with its place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Login {
    /// Whose login; not empty.
    pub user_id: Box<str>,
    /// The address as the event spells it.
    pub ip: Box<str>,
    /// With what.
    pub device: Box<str>,
    /// On what.
    pub platform: Box<str>,
    /// Through what.
    pub user_agent: Box<str>,
    /// Whether it succeeded.
    pub success: bool,
    /// The address in canonical form; `None` when `ip` is none.
    pub address: Option<IpAddr>,
    /// Where the address is; `None` when nothing is known of it.
    pub place: Option<Arc<Place>>,
}

impl Login {
    /// A successful login without device, platform, user agent or place.
    pub fn new(user_id: &str, ip: &str) -> Login {
        let event = LoginEvent {
            user_id: user_id.to_owned(),
            timestamp: String::new(),
            ip: ip.to_owned(),
            device: String::new(),
            platform: String::new(),
            user_agent: String::new(),
            success: true,
        };
        Login::placed(event, crate::enrich::parse_address(ip), None)
    }

    /// The login that `event` tells of, with its place in `table`.
    pub fn from_event(event: LoginEvent, table: &IpTable) -> Login {
        let (address, place) = table.locate(&event.ip);
        Login::placed(event, address, place)
    }

    fn placed(event: LoginEvent, address: Option<IpAddr>, place: Option<Arc<Place>>) -> Login {
        Login {
            user_id: event.user_id.into(),
            ip: event.ip.into(),
            device: event.device.into(),
            platform: event.platform.into(),
            user_agent: event.user_agent.into(),
            success: event.success,
            address,
            place,
        }
    }

    /// This login at a time and a position in the first source.
    pub fn at(self, time: Micros, partition: u32, offset: u64) -> Stamped<Login> {
        let partition = Partition { source: SourceId(0), index: partition };
        Stamped { time, position: Position { partition, offset }, data: self }
    }

    /// The country, when it is known.
    pub fn country(&self) -> Option<&Arc<str>> {
        self.place.as_ref()?.country.as_ref()
    }

    /// The city, when it is known.
    pub fn city(&self) -> Option<&Arc<str>> {
        self.place.as_ref()?.city.as_ref()
    }

    /// Latitude and longitude in degrees, when they are known.
    pub fn lat_lon(&self) -> Option<(f64, f64)> {
        self.place.as_ref()?.position
    }

    /// Whether the six fields beside the time are equal: with equal times, the later of the two is a duplicate. What
    /// the IP geography made of them does not count.
    pub fn same_event(&self, other: &Login) -> bool {
        self.success == other.success
            && self.user_id == other.user_id
            && self.ip == other.ip
            && self.device == other.device
            && self.platform == other.platform
            && self.user_agent == other.user_agent
    }

    /// `mobile` where the device, in ASCII lower case, contains `iphone` or `android`, else `desktop`.
    pub fn device_type(&self) -> &'static str {
        let contains = |word: &str| {
            let device = self.device.as_bytes();
            device.windows(word.len()).any(|part| part.eq_ignore_ascii_case(word.as_bytes()))
        };
        if contains("iphone") || contains("android") { "mobile" } else { "desktop" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(user_id: &str, timestamp: &str) -> LoginEvent {
        let json = serde_json::json!({"user_id": user_id, "timestamp": timestamp, "ip": "", "device": "", "platform": "", "user_agent": ""});
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn the_first_defect_counts() {
        for (user_id, timestamp, expected) in [
            ("", "", Err("empty_user_id")),
            ("", "1970-01-01T00:00:01Z", Err("empty_user_id")),
            ("a", "1970-01-01 00:00:01Z", Err("bad_timestamp")),
            (" ", "1970-01-01T00:00:01Z", Ok(Micros(1_000_000))),
        ] {
            let event = event(user_id, timestamp);
            assert!(event.success);
            assert_eq!(event.event_time(), expected, "{event:?}");
        }
    }

    #[test]
    fn mobile_by_ascii_lower_case() {
        for (device, expected) in [
            ("iPhone 15", "mobile"),
            ("ANDROID TV", "mobile"),
            ("myIPhone", "mobile"),
            ("\u{130}PHONE", "desktop"),
            ("i phone", "desktop"),
            ("iphon", "desktop"),
            ("", "desktop"),
            ("Désktop-Android", "mobile"),
        ] {
            let login = Login { device: device.into(), ..Login::new("a", "") };
            assert_eq!(login.device_type(), expected, "{device}");
        }
    }

    #[test]
    fn a_duplicate_is_equal_in_every_field_of_the_event() {
        let login = Login::new("a", "1.2.3.4");
        let base = || login.clone();
        assert!(login.same_event(&Login { place: Some(Arc::default()), ..base() }));
        for other in [
            Login { user_id: "b".into(), ..base() },
            Login { ip: "::ffff:1.2.3.4".into(), ..base() },
            Login { device: "b".into(), ..base() },
            Login { platform: "b".into(), ..base() },
            Login { user_agent: "b".into(), ..base() },
            Login { success: false, ..base() },
        ] {
            assert!(!login.same_event(&other), "{other:?}");
        }
    }

    #[test]
    fn survives_postcard() {
        let place = Place { country: Some("AU".into()), city: None, position: Some((-33.5, 151.25)) };
        let login = Login { place: Some(Arc::new(place)), ..Login::new("a", "::1") }.at(Micros(7), 3, 9);
        let bytes = postcard::to_stdvec(&login).unwrap();
        assert_eq!(postcard::from_bytes::<Stamped<Login>>(&bytes).unwrap(), login);
    }

    #[test]
    fn the_schema_has_the_fields_of_the_event() {
        let schema: serde_json::Value = serde_json::from_str(LOGIN_EVENT_SCHEMA).unwrap();
        let names: Vec<_> = schema["fields"].as_array().unwrap().iter().map(|f| f["name"].as_str().unwrap()).collect();
        let event = serde_json::to_value(event("a", "b")).unwrap();
        assert_eq!(names, event.as_object().unwrap().keys().collect::<Vec<_>>());
    }
}
