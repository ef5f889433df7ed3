//! A line of a pageview file: a pageview, or the first thing that is wrong with it (SEMANTICS "Sources", Pageviews).
//!
//! Strict JSON of RFC 8259: no NaN, no byte order mark, nothing after the value; nesting as deep as it likes, because a value that is not
//! used is passed over without recursion. A text with half a surrogate pair is no text.

use super::Pageview;
use crate::table_row;
use crate::view::{EpochClock, Text, View};
use dataflow_core::{Micros, time::SECOND};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// The newest instant of a pageview: 9999-12-31T23:59:59Z.
const RECEIVED_AT_MAX: i64 = 253_402_300_799;

/// What a line is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// White space only: not a record.
    Blank,
    /// A pageview.
    Pageview(Pageview),
    /// None.
    Defective(DefectiveLine),
}

/// A line that is no pageview, as the dead letters hold it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DefectiveLine {
    /// The line; what is no UTF-8 is U+FFFD.
    pub raw_record: String,
    /// The first defect.
    pub reason: Defect,
    /// The url where it is valid.
    pub url: Option<String>,
    /// The user where it is valid.
    pub user_id: Option<i64>,
}

table_row! {
    /// A row of `bronze.pageviews_dlq`: a line that is no pageview.
    pub struct DeadPageview("bronze.pageviews_dlq") {
        /// The clock of the epoch that read it.
        pub ingestion_time: Micros,
        /// The file or object that it is in, and the line's rank.
        pub source_file: Text,
        /// The line; what is no UTF-8 is U+FFFD.
        pub raw_record: Text,
        /// The first defect.
        pub reason: Text,
        /// The user where it is valid.
        pub user_id: Option<i64>,
        /// The url where it is valid.
        pub url: Option<Text>,
    }
}

/// The rows of `bronze.pageviews_dlq` for lines that are no pageviews, each with where it is.
pub fn dead_pageviews<'s>(lines: &View<'s, (Text, DefectiveLine)>, clock: &EpochClock<'s>) -> View<'s, DeadPageview> {
    lines.clone().named("bronze.pageviews_dlq").ingested(clock, |now, (source_file, line)| DeadPageview {
        ingestion_time: now,
        source_file,
        raw_record: line.raw_record.into(),
        reason: line.reason.name().into(),
        user_id: line.user_id,
        url: line.url.map(Into::into),
    })
}

/// Why a line is no pageview, in the order in which this is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Defect {
    /// No JSON, or no UTF-8.
    NotJson,
    /// JSON, but no object.
    NotObject,
    /// `user_id` is no 64-bit integer.
    NoUserId,
    /// `url` is no string.
    NoUrl,
    /// `received_at` is no integer of seconds from 1970 to 9999.
    NoReceivedAt,
}

impl Defect {
    /// The name that the dead letters show.
    pub fn name(self) -> &'static str {
        match self {
            Defect::NotJson => "not_json",
            Defect::NotObject => "not_object",
            Defect::NoUserId => "no_user_id",
            Defect::NoUrl => "no_url",
            Defect::NoReceivedAt => "no_received_at",
        }
    }
}

/// Parses a line, which comes without its line feed.
///
/// ```
/// use dataflow_operators::view::shop::pageview::{Defect, Line, parse};
/// assert_eq!(parse(b" \r"), Line::Blank);
/// let Line::Defective(line) = parse(br#"{"user_id": 1.0, "url": "/products/7"}"#) else { panic!("1.0 is no integer") };
/// assert_eq!((line.reason, line.url.as_deref()), (Defect::NoUserId, Some("/products/7")));
/// ```
pub fn parse(line: &[u8]) -> Line {
    if line.iter().all(u8::is_ascii_whitespace) {
        return Line::Blank;
    }
    let defective = |reason, user_id, url| {
        Line::Defective(DefectiveLine { raw_record: String::from_utf8_lossy(line).into_owned(), reason, url, user_id })
    };
    let Some(value) = std::str::from_utf8(line).ok().and_then(|text| serde_json::from_str::<&RawValue>(text).ok())
    else {
        return defective(Defect::NotJson, None, None);
    };
    if !value.get().starts_with('{') {
        return defective(Defect::NotObject, None, None);
    }
    // The last of equal keys counts: a map keeps that.
    let Ok(fields) = serde_json::from_str::<BTreeMap<String, &RawValue>>(value.get()) else {
        return defective(Defect::NotJson, None, None);
    };
    let field = |name: &str| fields.get(name).map(|value| value.get());
    let user_id = field("user_id").and_then(integer);
    let url = field("url").and_then(text);
    let received_at = field("received_at").and_then(integer).filter(|at| (0..=RECEIVED_AT_MAX).contains(at));
    match (user_id, url, received_at) {
        (None, url, _) => defective(Defect::NoUserId, None, url),
        (user_id, None, _) => defective(Defect::NoUrl, user_id, None),
        (user_id, url, None) => defective(Defect::NoReceivedAt, user_id, url),
        (Some(user_id), Some(url), Some(seconds)) => Line::Pageview(Pageview {
            user_id,
            url: url.into(),
            channel: field("channel").and_then(text).map(Into::into),
            received_at: Micros(seconds * SECOND),
        }),
    }
}

/// A JSON integer of 64 bits: no fraction and no exponent, whatever they come to.
fn integer(json: &str) -> Option<i64> {
    json.parse().ok()
}

fn text(json: &str) -> Option<String> {
    serde_json::from_str(json).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: Result<(i64, &str, Option<&str>, i64), &str>) {
        match (parse(line.as_bytes()), expected) {
            (Line::Pageview(view), Ok((user_id, url, channel, seconds))) => {
                let channel = channel.map(Into::into);
                let received_at = Micros(seconds * SECOND);
                assert_eq!(view, Pageview { user_id, url: url.into(), channel, received_at }, "{line}");
            }
            (Line::Defective(defective), Err(reason)) => {
                assert_eq!((defective.reason.name(), &*defective.raw_record), (reason, line));
            }
            (got, _) => panic!("{line}: {got:?}"),
        }
    }

    #[test]
    fn valid_lines() {
        check(r#"{"user_id":1,"url":"/a","channel":"x","received_at":5}"#, Ok((1, "/a", Some("x"), 5)));
        check(r#" { "user_id" : -0 , "url" : "\u00e4\/" , "received_at" : 0 } "#, Ok((0, "ä/", None, 0)));
        check(
            r#"{"user_id":1,"user_id":2,"url":"","channel":7,"received_at":253402300799}"#,
            Ok((2, "", None, RECEIVED_AT_MAX)),
        );
        check(
            r#"{"more":1e999,"user_id":-9223372036854775808,"url":"u","received_at":1}"#,
            Ok((i64::MIN, "u", None, 1)),
        );
        let deep =
            format!(r#"{{"more":{}{},"user_id":1,"url":"u","received_at":1}}"#, "[".repeat(9_999), "]".repeat(9_999));
        check(&deep, Ok((1, "u", None, 1)));
    }

    #[test]
    fn first_defects() {
        for line in [
            "x",
            "{",
            "{}x",
            "{} {}",
            "{'a':1}",
            "{\"a\":NaN}",
            "{\"a\":01}",
            "\u{feff}{}",
            "{\"a\":\"\t\"}",
            "{\"a\":1,}",
        ] {
            check(line, Err("not_json"));
        }
        for line in ["1", "null", "[]", "\"{\"", "1e999"] {
            check(line, Err("not_object"));
        }
        check(&format!("{}{}", "[".repeat(9_999), "]".repeat(9_999)), Err("not_object"));
        for user in ["1.0", "1e0", "\"1\"", "true", "null", "9223372036854775808", "1e999", "[1]"] {
            check(&format!(r#"{{"user_id":{user},"url":1,"received_at":-1}}"#), Err("no_user_id"));
        }
        for url in ["1", "null", "[\"/\"]", "\"\\ud800\""] {
            check(&format!(r#"{{"user_id":1,"url":{url},"received_at":-1}}"#), Err("no_url"));
        }
        for at in ["-1", "253402300800", "1.0", "\"1\"", "null", "true"] {
            check(&format!(r#"{{"user_id":1,"url":"u","received_at":{at}}}"#), Err("no_received_at"));
        }
        check(r#"{"user_id":1,"url":"u"}"#, Err("no_received_at"));
    }

    #[test]
    fn what_is_valid_of_a_defective_line_is_kept() {
        let Line::Defective(line) = parse(b"{\"user_id\":7,\"url\":\"u\"}") else { panic!("no time") };
        assert_eq!((line.user_id, line.url.as_deref()), (Some(7), Some("u")));
        let Line::Defective(line) = parse(b"{\"a\":\"\xff\"}") else { panic!("no UTF-8") };
        assert_eq!((line.reason, &*line.raw_record), (Defect::NotJson, "{\"a\":\"\u{fffd}\"}"));
        assert_eq!(parse(b"\t \r"), Line::Blank);
    }
}
