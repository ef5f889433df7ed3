//! A login: as its writers send it ([`LoginEvent`]) and as the job carries it ([`Login`], with its place).
//!
//! Enrichment happens once, when the event is accepted; the place then travels with the login into state and findings.
//! Which of a record's defects counts (an empty user before a bad timestamp) is decided here.

use super::texts::Texts;
use crate::enrich::{IpTable, Place};
use dataflow_core::{EventTime, Micros, Partition, Position, SourceId, Stamped};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginEvent {
    /// User, address, device, platform, user agent; then the time, which is no part of what a [`Login`] keeps.
    texts: Texts<6>,
    success: bool,
}

const USER_ID: usize = 0;
const IP: usize = 1;
const DEVICE: usize = 2;
const PLATFORM: usize = 3;
const USER_AGENT: usize = 4;
const TIMESTAMP: usize = 5;

/// A login as formats see it.
#[derive(Serialize, Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    user_id: Cow<'a, str>,
    #[serde(borrow)]
    timestamp: Cow<'a, str>,
    #[serde(borrow)]
    ip: Cow<'a, str>,
    #[serde(borrow)]
    device: Cow<'a, str>,
    #[serde(borrow)]
    platform: Cow<'a, str>,
    #[serde(borrow)]
    user_agent: Cow<'a, str>,
    /// True when the writer does not say.
    #[serde(default = "succeeded")]
    success: bool,
}

fn succeeded() -> bool {
    true
}

impl Serialize for LoginEvent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = |rank| Cow::Borrowed(self.texts.get(rank));
        let (user_id, timestamp, ip) = (text(USER_ID), text(TIMESTAMP), text(IP));
        let (device, platform, user_agent) = (text(DEVICE), text(PLATFORM), text(USER_AGENT));
        Fields { user_id, timestamp, ip, device, platform, user_agent, success: self.success }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for LoginEvent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<LoginEvent, D::Error> {
        let f = Fields::deserialize(deserializer)?;
        let texts = Texts::new([&f.user_id, &f.ip, &f.device, &f.platform, &f.user_agent, &f.timestamp]);
        Ok(LoginEvent { texts, success: f.success })
    }
}

impl EventTime for LoginEvent {
    fn event_time(&self) -> Result<Micros, &'static str> {
        if self.texts.get(USER_ID).is_empty() {
            return Err("empty_user_id");
        }
        Micros::parse(self.texts.get(TIMESTAMP)).ok_or("bad_timestamp")
    }
}

/// A login with its place. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Login {
    /// User, address, device, platform, user agent.
    pub texts: Texts<5>,
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
        let texts = Texts::new([user_id, ip, "", "", ""]);
        Login { texts, success: true, address: crate::enrich::parse_address(ip), place: None }
    }

    /// The login that `event` tells of, with its place in `table`.
    pub fn from_event(event: &LoginEvent, table: &IpTable) -> Login {
        let (address, place) = table.locate(event.texts.get(IP));
        Login { texts: event.texts.first(), success: event.success, address, place }
    }

    /// This login with a device, on a platform, through a user agent.
    pub fn on(self, device: &str, platform: &str, user_agent: &str) -> Login {
        let texts = Texts::new([self.user_id(), self.ip(), device, platform, user_agent]);
        Login { texts, ..self }
    }

    /// Whose login; not empty.
    pub fn user_id(&self) -> &str {
        self.texts.get(USER_ID)
    }

    /// Whose login, to be kept.
    pub fn user(&self) -> Texts<1> {
        self.texts.first()
    }

    /// The address as the event spells it.
    pub fn ip(&self) -> &str {
        self.texts.get(IP)
    }

    /// With what.
    pub fn device(&self) -> &str {
        self.texts.get(DEVICE)
    }

    /// On what.
    pub fn platform(&self) -> &str {
        self.texts.get(PLATFORM)
    }

    /// Through what.
    pub fn user_agent(&self) -> &str {
        self.texts.get(USER_AGENT)
    }

    /// Bytes of its strings.
    pub fn text_bytes(&self) -> usize {
        self.texts.bytes()
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
        self.success == other.success && self.texts == other.texts
    }

    /// `mobile` where the device, in ASCII lower case, contains `iphone` or `android`, else `desktop`.
    pub fn device_type(&self) -> &'static str {
        let contains = |word: &str| {
            let device = self.device().as_bytes();
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
            assert!(event.success, "true unless the writer says otherwise");
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
            let login = Login::new("a", "").on(device, "", "");
            assert_eq!(login.device_type(), expected, "{device}");
        }
    }

    #[test]
    fn a_duplicate_is_equal_in_every_field_of_the_event() {
        let texts = ["a", "1.2.3.4", "d", "p", "u"];
        let login = Login { texts: Texts::new(texts), ..Login::new("", "1.2.3.4") };
        assert!(login.same_event(&Login { place: Some(Arc::default()), ..login.clone() }));
        assert!(!login.same_event(&Login { success: false, ..login.clone() }));
        for rank in 0..texts.len() {
            let mut other = texts;
            other[rank] = "::ffff:1.2.3.4";
            assert!(!login.same_event(&Login { texts: Texts::new(other), ..login.clone() }), "{rank}");
        }
        let said = r#"{"user_id":"a","timestamp":"T","ip":"1.2.3.4","device":"d","platform":"p","user_agent":"u"}"#;
        let [one, other]: [LoginEvent; 2] =
            ["one", "1970-01-01T00:00:01Z"].map(|t| serde_json::from_str(&said.replace('T', t)).unwrap());
        let table = IpTable::parse(b"ip_prefix,country,city\n").unwrap();
        assert!(
            Login::from_event(&one, &table).same_event(&Login::from_event(&other, &table)),
            "how the time is spelt"
        );
        assert_eq!(Login::from_event(&one, &table), login);
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
        assert_eq!(serde_json::from_value::<LoginEvent>(event.clone()).unwrap(), self::event("a", "b"));
        assert_eq!(names, event.as_object().unwrap().keys().collect::<Vec<_>>());
    }
}
