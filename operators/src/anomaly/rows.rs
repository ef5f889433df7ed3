//! The JSON values and keys of the login job's topics, written straight into bytes (SEMANTICS "Login anomalies").
//!
//! A function of its arguments to the byte: fields stand in the order of SEMANTICS' table, without spaces. Strings are
//! UTF-8 with only `"`, `\` and control characters escaped. Null is written, never left out.

use super::{DETECTORS, Detail, Finding, Login, Status};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use dataflow_core::{DeadLetter, Epoch, Micros, Position, Stamped};
use std::io::Write;

/// Bytes of a value beyond which a dead letter does not carry it, so that every dead letter fits into the 1 MB that brokers and topics
/// take by default: four thirds of this in base64, [`DEAD_KEY_BYTES_MAX`] of key, and the position.
pub const RAW_BYTES_MAX: usize = 700 << 10;

/// Bytes of a key beyond which a dead letter does without it.
pub const DEAD_KEY_BYTES_MAX: usize = 64 << 10;

/// A row of `login-events-enriched`.
pub fn enriched_row(login: &Stamped<Login>, out: &mut Vec<u8>) {
    let data = &login.data;
    Object::open(out)
        .text("user_id", data.user_id())
        .time("timestamp", login.time)
        .text("ip", data.ip())
        .text("platform", data.platform())
        .text("device_type", data.device_type())
        .text_or_null("country", data.country().map(|country| &**country))
        .text_or_null("city", data.city().map(|city| &**city))
        .close();
}

/// A row of `login-anomalies`: `finding` is raised or withdrawn in `epoch`. `source` is the name of the source that the
/// logins were read from.
///
/// # Panics
/// When the finding's detector is no rank in [`DETECTORS`].
pub fn anomaly_row(finding: &Finding, status: Status, epoch: Epoch, source: &str, out: &mut Vec<u8>) {
    let (name, reason) = DETECTORS[usize::from(finding.detector)];
    let mut object = Object::open(out);
    object
        .key("id")
        .id(finding.detector, source, finding.position)
        .text("status", status.name())
        .text("user_id", finding.user.get(0))
        .time("timestamp", finding.time)
        .text("detector", name)
        .text("reason", reason)
        .text("severity", finding.severity.name())
        .text_or_null("country", finding.country.as_deref())
        .number("epoch", epoch)
        .key("evidence");
    object.out.push(b'[');
    for (rank, position) in finding.evidence.iter().enumerate() {
        if rank > 0 {
            object.out.push(b',');
        }
        Object::open(object.out).position(source, *position).close();
    }
    object.out.push(b']');
    object.key("detail");
    detail(finding, source, object.out);
    object.close();
}

/// A row of `login-events-late`: `login` was read in `epoch`, below `watermark`, the one at the end of the epoch before.
pub fn late_row(login: &Stamped<Login>, source: &str, epoch: Epoch, watermark: Micros, out: &mut Vec<u8>) {
    let data = &login.data;
    Object::open(out)
        .text("user_id", data.user_id())
        .time("timestamp", login.time)
        .text("ip", data.ip())
        .text("device", data.device())
        .text("platform", data.platform())
        .text("user_agent", data.user_agent())
        .bool("success", data.success)
        .position(source, login.position)
        .number("epoch", epoch)
        .time("watermark", watermark)
        .close();
}

/// A row of `login-events-dlq`; `with_raw` adds the value as it came, in base64, null for a null. In place of a value beyond
/// [`RAW_BYTES_MAX`] stand null, its length and its BLAKE3 hash; the value itself stands where the row says, in the source.
pub fn dead_letter_row(letter: &DeadLetter, source: &str, with_raw: bool, out: &mut Vec<u8>) {
    let mut object = Object::open(out);
    object.position(source, letter.position).number("epoch", letter.epoch).text("reason", &letter.reason);
    if let Some(raw) = letter.raw.as_ref().filter(|raw| with_raw && raw.len() > RAW_BYTES_MAX) {
        let hash = blake3::hash(raw).to_hex();
        object.text_or_null("raw", None).number("raw_bytes", raw.len()).text("raw_hash", &hash);
    } else if with_raw {
        object.text_or_null("raw", letter.raw.as_ref().map(|raw| STANDARD.encode(raw)).as_deref());
    }
    object.close();
}

/// The key of a row that belongs to a user's login.
pub fn user_key(user_id: &str, time: Micros, out: &mut Vec<u8>) {
    Object::open(out).text("user_id", user_id).time("timestamp", time).close();
}

fn detail(finding: &Finding, source: &str, out: &mut Vec<u8>) {
    let mut object = Object::open(out);
    match &finding.detail {
        Detail::None => &mut object,
        Detail::Travel { distance_km, elapsed_us } => {
            object.number("distance_km", distance_km).number("elapsed_us", elapsed_us)
        }
        Detail::Escalates { high } => object.key("escalates").id(finding.detector, source, *high),
        Detail::Stuffing { ip, users, window_start } => {
            object.text("ip", ip).number("users", users).time("window_start", *window_start)
        }
        Detail::Device { device, platform } => object.text("device", device).text("platform", platform),
        Detail::Burst { logins, session_start, sessions } => {
            object.number("logins", logins).time("session_start", *session_start).number("sessions", sessions)
        }
    }
    .close();
}

/// A JSON object being written. Keys are plain ASCII words of this file.
struct Object<'o> {
    out: &'o mut Vec<u8>,
    empty: bool,
}

impl<'o> Object<'o> {
    fn open(out: &'o mut Vec<u8>) -> Object<'o> {
        out.push(b'{');
        Object { out, empty: true }
    }

    fn close(&mut self) {
        self.out.push(b'}');
    }

    fn key(&mut self, key: &str) -> &mut Self {
        self.out.extend_from_slice(if self.empty { b"\"" } else { b",\"" });
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.empty = false;
        self
    }

    fn text(&mut self, key: &str, text: &str) -> &mut Self {
        self.key(key);
        self.out.push(b'"');
        escape(text, self.out);
        self.out.push(b'"');
        self
    }

    fn text_or_null(&mut self, key: &str, text: Option<&str>) -> &mut Self {
        match text {
            Some(text) => self.text(key, text),
            None => {
                self.key(key).out.extend_from_slice(b"null");
                self
            }
        }
    }

    fn time(&mut self, key: &str, time: Micros) -> &mut Self {
        self.key(key).out.push(b'"');
        time.write(self.out);
        self.out.push(b'"');
        self
    }

    fn bool(&mut self, key: &str, value: bool) -> &mut Self {
        self.key(key).out.extend_from_slice(if value { b"true" } else { b"false" });
        self
    }

    fn number(&mut self, key: &str, number: impl std::fmt::Display) -> &mut Self {
        self.key(key).print(format_args!("{number}"))
    }

    fn position(&mut self, source: &str, position: Position) -> &mut Self {
        self.text("topic", source).number("partition", position.partition.index).number("offset", position.offset)
    }

    /// `<detector>/<source>/<partition>/<offset>`.
    fn id(&mut self, detector: u16, source: &str, position: Position) -> &mut Self {
        self.out.push(b'"');
        escape(DETECTORS[usize::from(detector)].0, self.out);
        self.out.push(b'/');
        escape(source, self.out);
        self.print(format_args!("/{}/{}\"", position.partition.index, position.offset))
    }

    fn print(&mut self, text: std::fmt::Arguments<'_>) -> &mut Self {
        self.out.write_fmt(text).expect("writing to memory does not fail");
        self
    }
}

/// Appends `text` as the inside of a JSON string (RFC 8259 section 7).
fn escape(text: &str, out: &mut Vec<u8>) {
    let bytes = text.as_bytes();
    let mut copied = 0;
    for (at, byte) in bytes.iter().enumerate() {
        if *byte >= b' ' && *byte != b'"' && *byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&bytes[copied..at]);
        copied = at + 1;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            control => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[HEX[usize::from(control >> 4)], HEX[usize::from(control & 15)]]);
            }
        }
    }
    out.extend_from_slice(&bytes[copied..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::anomaly::{
        BruteForce, Burst, CredentialStuffing, Detector, ImpossibleTravel, NewCountry, NewDevice, Severity,
    };
    use crate::enrich::Place;
    use proptest::prelude::*;
    use serde_json::Value;
    use std::sync::Arc;

    fn position(partition: u32, offset: u64) -> Position {
        Login::new("a", "").at(Micros(0), partition, offset).position
    }

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    /// `expected` is a row of the shared cases as it stands there; the bytes of a row must also be the same each time.
    fn check(row: &str, expected: &str) {
        let [row, expected]: [Value; 2] = [row, expected].map(|text| serde_json::from_str(text).unwrap());
        assert_eq!(row, expected);
    }

    fn finding<D: Detector>(
        t: &str,
        e: (u32, u64),
        user: &str,
        country: &str,
        severity: Severity,
        evidence: &[(u32, u64)],
        detail: Detail,
    ) -> Finding {
        Finding {
            detector: D::RANK,
            time: Micros::parse(t).unwrap(),
            position: position(e.0, e.1),
            user: Login::new(user, "").user(),
            country: Some(country).filter(|c| !c.is_empty()).map(Arc::from),
            severity,
            evidence: evidence.iter().map(|(p, o)| position(*p, *o)).collect(),
            detail,
        }
    }

    #[test]
    fn anomalies_as_the_cases_have_them() {
        let raised =
            |finding: &Finding, epoch| written(|out| anomaly_row(finding, Status::Raised, epoch, "login-events", out));
        let country = finding::<NewCountry>(
            "2026-03-01T09:00:14.376Z",
            (2, 0),
            "u0003",
            "NO",
            Severity::Low,
            &[(2, 0)],
            Detail::None,
        );
        assert_eq!(
            raised(&country, 1),
            r#"{"id":"new_country/login-events/2/0","status":"raised","user_id":"u0003","timestamp":"2026-03-01T09:00:14.376000Z","detector":"new_country","reason":"Login from new country","severity":"low","country":"NO","epoch":1,"evidence":[{"topic":"login-events","partition":2,"offset":0}],"detail":{}}"#
        );
        let travel = Detail::Travel { distance_km: 2156, elapsed_us: 49137000 };
        let travel = finding::<ImpossibleTravel>(
            "2026-03-09T09:02:23.782Z",
            (1, 79),
            "用户5",
            "AU",
            Severity::High,
            &[(1, 74), (1, 79)],
            travel,
        );
        check(
            &raised(&travel, 18531),
            r#"{"status":"raised","country":"AU","detail":{"distance_km":2156,"elapsed_us":49137000},"detector":"impossible_travel","epoch":18531,"evidence":[{"offset":74,"partition":1,"topic":"login-events"},{"offset":79,"partition":1,"topic":"login-events"}],"id":"impossible_travel/login-events/1/79","reason":"Impossible travel","severity":"high","timestamp":"2026-03-09T09:02:23.782000Z","user_id":"用户5"}"#,
        );
        let escalates = Detail::Escalates { high: position(0, 55) };
        let break_in = finding::<BruteForce>(
            "2026-03-01T09:07:47.714Z",
            (0, 69),
            "u0002",
            "JP",
            Severity::Critical,
            &[(0, 50), (0, 52), (0, 53), (0, 54), (0, 55), (0, 69)],
            escalates,
        );
        check(
            &raised(&break_in, 622),
            r#"{"status":"raised","country":"JP","detail":{"escalates":"brute_force/login-events/0/55"},"detector":"brute_force","epoch":622,"evidence":[{"offset":50,"partition":0,"topic":"login-events"},{"offset":52,"partition":0,"topic":"login-events"},{"offset":53,"partition":0,"topic":"login-events"},{"offset":54,"partition":0,"topic":"login-events"},{"offset":55,"partition":0,"topic":"login-events"},{"offset":69,"partition":0,"topic":"login-events"}],"id":"brute_force/login-events/0/69","reason":"Brute force","severity":"critical","timestamp":"2026-03-01T09:07:47.714000Z","user_id":"u0002"}"#,
        );
        let device = Detail::Device { device: "Kindle".into(), platform: "web".into() };
        let device = finding::<NewDevice>(
            "2026-03-02T09:00:18.102Z",
            (2, 8),
            "n00023",
            "NZ",
            Severity::Medium,
            &[(2, 8)],
            device,
        );
        check(
            &raised(&device, 5703),
            r#"{"status":"raised","country":"NZ","detail":{"device":"Kindle","platform":"web"},"detector":"new_device","epoch":5703,"evidence":[{"offset":8,"partition":2,"topic":"login-events"}],"id":"new_device/login-events/2/8","reason":"Login from new device","severity":"medium","timestamp":"2026-03-02T09:00:18.102000Z","user_id":"n00023"}"#,
        );
        let burst = Detail::Burst {
            logins: 10,
            session_start: Micros::parse("2026-04-01T09:07:45.664Z").unwrap(),
            sessions: 13,
        };
        let burst = finding::<Burst>(
            "2026-04-01T09:08:30.664Z",
            (1, 134),
            "u0001",
            "AU",
            Severity::Medium,
            &[(1, 125), (1, 134)],
            burst,
        );
        check(
            &raised(&burst, 33277),
            r#"{"status":"raised","country":"AU","detail":{"logins":10,"session_start":"2026-04-01T09:07:45.664000Z","sessions":13},"detector":"burst","epoch":33277,"evidence":[{"offset":125,"partition":1,"topic":"login-events"},{"offset":134,"partition":1,"topic":"login-events"}],"id":"burst/login-events/1/134","reason":"Login burst","severity":"medium","timestamp":"2026-04-01T09:08:30.664000Z","user_id":"u0001"}"#,
        );
        let stuffing = Detail::Stuffing { ip: "::1".into(), users: 10, window_start: Micros(0) };
        let stuffing =
            finding::<CredentialStuffing>("1970-01-01T00:00:01Z", (0, 1), "a", "", Severity::High, &[], stuffing);
        let withdrawn = written(|out| anomaly_row(&stuffing, Status::Withdrawn, 7, "login-events", out));
        check(
            &withdrawn,
            r#"{"id":"credential_stuffing/login-events/0/1","status":"withdrawn","user_id":"a","timestamp":"1970-01-01T00:00:01.000000Z","detector":"credential_stuffing","reason":"Credential stuffing","severity":"high","country":null,"epoch":7,"evidence":[],"detail":{"ip":"::1","users":10,"window_start":"1970-01-01T00:00:00.000000Z"}}"#,
        );
    }

    #[test]
    fn logins_as_the_cases_have_them() {
        let place = Place { country: Some("NL".into()), city: Some("Amsterdam".into()), position: None };
        let login = Login { place: Some(Arc::new(place)), ..Login::new("n00022", "91.198.174.115").on("", "ios", "") };
        let login = login.at(Micros::parse("2026-03-03T09:03:42.096Z").unwrap(), 0, 0);
        assert_eq!(
            written(|out| enriched_row(&login, out)),
            r#"{"user_id":"n00022","timestamp":"2026-03-03T09:03:42.096000Z","ip":"91.198.174.115","platform":"ios","device_type":"desktop","country":"NL","city":"Amsterdam"}"#
        );
        check(
            &written(|out| user_key("n00022", login.time, out)),
            r#"{"user_id":"n00022","timestamp":"2026-03-03T09:03:42.096000Z"}"#,
        );
        let late = Login::new("u0000", "203.0.197.242").on("Android Pixel 8", "windows", "агент \"7\"");
        let late = late.at(Micros::parse("2026-03-08T09:01:25.942Z").unwrap(), 0, 152);
        let watermark = Micros::parse("2026-03-08T09:01:41.002Z").unwrap();
        check(
            &written(|out| late_row(&late, "login-events", 24761, watermark, out)),
            r#"{"device":"Android Pixel 8","epoch":24761,"ip":"203.0.197.242","offset":152,"partition":0,"platform":"windows","success":true,"timestamp":"2026-03-08T09:01:25.942000Z","topic":"login-events","user_agent":"агент \"7\"","user_id":"u0000","watermark":"2026-03-08T09:01:41.002000Z"}"#,
        );
    }

    #[test]
    fn dead_letters_with_and_without_their_bytes() {
        let mut letter = DeadLetter {
            position: position(1, 4),
            epoch: 351,
            reason: "undecodable".into(),
            key: None,
            raw: Some(vec![0, 255, 1].into()),
        };
        let row = |letter: &DeadLetter, with_raw| written(|out| dead_letter_row(letter, "login-events", with_raw, out));
        check(
            &row(&letter, false),
            r#"{"epoch":351,"offset":4,"partition":1,"reason":"undecodable","topic":"login-events"}"#,
        );
        assert_eq!(
            row(&letter, true),
            r#"{"topic":"login-events","partition":1,"offset":4,"epoch":351,"reason":"undecodable","raw":"AP8B"}"#
        );
        letter.raw = None;
        assert_eq!(
            row(&letter, true),
            r#"{"topic":"login-events","partition":1,"offset":4,"epoch":351,"reason":"undecodable","raw":null}"#
        );
    }

    #[test]
    fn every_dead_letter_fits_into_a_message() {
        let row = |bytes: usize| {
            let raw = Some(vec![7; bytes].into());
            let reason = "undecodable".into();
            let letter = DeadLetter { position: position(1, u64::MAX), epoch: u64::MAX, reason, key: None, raw };
            written(|out| dead_letter_row(&letter, "login-events", true, out))
        };
        // `max.message.bytes` of a topic by default, less what a batch adds.
        assert!(row(RAW_BYTES_MAX).len() + DEAD_KEY_BYTES_MAX < 1_048_588 - 1_000);
        let hash = blake3::hash(&vec![7; RAW_BYTES_MAX + 1]).to_hex();
        let parsed: Value = serde_json::from_str(&row(RAW_BYTES_MAX + 1)).unwrap();
        assert_eq!(parsed["raw"], Value::Null);
        assert_eq!((parsed["raw_bytes"].as_u64(), parsed["raw_hash"].as_str()), (Some(716_801), Some(hash.as_str())));
    }

    /// What a sink's messages are bounded by: `kafka_settings::MESSAGE_BYTES_MAX` of the connectors.
    #[test]
    fn no_row_is_more_than_twelve_times_its_record() {
        let text = "\u{1}".repeat(1000);
        let check = |texts: usize, login: Login| {
            let login = login.at(Micros(0), 0, 0);
            let key = written(|out| user_key(login.data.user_id(), login.time, out));
            let finding = Finding {
                detector: NewDevice::RANK,
                time: login.time,
                position: login.position,
                user: login.data.user(),
                country: None,
                severity: Severity::Low,
                evidence: [login.position].into_iter().collect(),
                detail: Detail::Device { device: login.data.device().into(), platform: login.data.platform().into() },
            };
            let rows = [
                written(|out| enriched_row(&login, out)),
                written(|out| late_row(&login, "login-events", 1, login.time, out)),
                written(|out| anomaly_row(&finding, Status::Raised, 1, "login-events", out)),
            ];
            assert!(rows.iter().all(|row| key.len() + row.len() <= 12 * 1000 * texts + 1024), "{texts}");
        };
        check(1, Login::new(&text, ""));
        check(4, Login::new(&text, &text).on(&text, &text, ""));
    }

    proptest! {
        #[test]
        fn any_text_comes_back(text in r#"(\PC|["\\\x00-\x1f\x7f]){0,20}"#) {
            let parsed: Value = serde_json::from_str(&written(|out| user_key(&text, Micros(0), out))).unwrap();
            prop_assert_eq!(parsed["user_id"].as_str(), Some(text.as_str()));
        }
    }
}
