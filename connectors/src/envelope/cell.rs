//! A value as a message has it, before anybody knows what its column wants: the common ground of Avro and JSON.

use std::borrow::Cow;

/// What stands for a value that the database did not send.
pub(super) const PLACEHOLDER: &str = "__debezium_unavailable_value";

/// A value as it was written.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Raw<'a> {
    Null,
    Boolean(bool),
    Integer(i64),
    Float(f32),
    Double(f64),
    /// A number of JSON that is no 64-bit integer, as text.
    Number(&'a str),
    Text(Cow<'a, str>),
    Bytes(Cow<'a, [u8]>),
    /// A decimal that brings its own scale: two's complement, big-endian.
    Scaled {
        scale: i32,
        unscaled: Cow<'a, [u8]>,
    },
    /// Something that no column can hold, such as an array.
    Other,
}

/// What a number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Millis,
    Micros,
    Nanos,
}

/// What the writer's schema says about a value beyond its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Nothing.
    Plain,
    /// Bytes; in JSON base64.
    Bytes,
    /// The bytes of a decimal with the writer's scale.
    Decimal { scale: i32 },
    /// Days since 1970.
    Days,
    /// Time since 1970.
    Instant(Unit),
    /// Time since midnight.
    TimeOfDay(Unit),
    /// Time since midnight, as ISO text.
    IsoTimeOfDay,
}

impl Meaning {
    /// Of the names that Kafka Connect and Debezium give to types; `scale` is the schema's.
    pub(super) fn of_name(name: &str, scale: Option<i32>) -> Option<Meaning> {
        let connect = |short| name.strip_prefix("org.apache.kafka.connect.data.") == Some(short);
        let debezium = name.strip_prefix("io.debezium.time.").unwrap_or_default();
        Some(match debezium {
            "Date" => Meaning::Days,
            "Timestamp" => Meaning::Instant(Unit::Millis),
            "MicroTimestamp" => Meaning::Instant(Unit::Micros),
            "NanoTimestamp" => Meaning::Instant(Unit::Nanos),
            "Time" => Meaning::TimeOfDay(Unit::Millis),
            "MicroTime" => Meaning::TimeOfDay(Unit::Micros),
            "NanoTime" => Meaning::TimeOfDay(Unit::Nanos),
            "IsoTime" => Meaning::IsoTimeOfDay,
            _ if connect("Decimal") => Meaning::Decimal { scale: scale? },
            _ if connect("Date") => Meaning::Days,
            _ if connect("Timestamp") => Meaning::Instant(Unit::Millis),
            _ if connect("Time") => Meaning::TimeOfDay(Unit::Millis),
            _ => return None,
        })
    }

    /// Of Avro's logical types.
    pub(super) fn of_logical_type(name: &str, scale: Option<i32>) -> Option<Meaning> {
        Some(match name {
            // A scale that is left out is 0 (Avro specification, "Decimal").
            "decimal" => Meaning::Decimal { scale: scale.unwrap_or(0) },
            "date" => Meaning::Days,
            "timestamp-millis" | "local-timestamp-millis" => Meaning::Instant(Unit::Millis),
            "timestamp-micros" | "local-timestamp-micros" => Meaning::Instant(Unit::Micros),
            "timestamp-nanos" | "local-timestamp-nanos" => Meaning::Instant(Unit::Nanos),
            "time-millis" => Meaning::TimeOfDay(Unit::Millis),
            "time-micros" => Meaning::TimeOfDay(Unit::Micros),
            _ => return None,
        })
    }
}

/// A value and its meaning.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Cell<'a> {
    pub(super) raw: Raw<'a>,
    pub(super) meaning: Meaning,
}

impl Cell<'_> {
    /// What stands where nothing was written.
    pub(super) const EMPTY: Cell<'static> = Cell { raw: Raw::Null, meaning: Meaning::Plain };
}
