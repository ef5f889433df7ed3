//! The bindings file: the log as NDJSON that another engine can read, and that `dataflow replay` takes (SEMANTICS
//! "Bindings file").
//!
//! [`write_rows`] leaves nothing out. [`parse_recorded`] takes what the specification allows to be left out, and refuses the
//! rest with the number of the line: unknown fields, epochs that do not rise, clocks and ends that fall, partitions that vanish.

use dataflow_core::{Binding, BindingState, Epoch, Error, Micros, Partition, Result};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

/// Writes rows that follow `base` (see [`Rows::base`](super::Rows::base)), a line each, and returns the state at the last.
/// `sources` are the names in the log's header.
///
/// # Errors
/// Those of the rows and of `out`.
pub fn write_rows(
    base: BindingState,
    rows: impl IntoIterator<Item = Result<Binding>>,
    sources: &[String],
    out: &mut dyn Write,
) -> Result<BindingState> {
    let mut state = base;
    for row in rows {
        state.apply(&row?);
        let epoch = state.epoch;
        if let Some(unknown) = state.partitions.keys().chain(&state.idle).find(|p| name(sources, **p).is_none()) {
            let source = unknown.source.0;
            return Err(Error::us(format!("cannot export epoch {epoch}: source {source} has no name in the log")));
        }
        let failed =
            |e: std::io::Error| Error::outside(format!("cannot write the bindings of epoch {epoch}")).because(e);
        serde_json::to_writer(&mut *out, &Line { state: &state, sources }).map_err(|e| failed(e.into()))?;
        out.write_all(b"\n").map_err(failed)?;
    }
    Ok(state)
}

fn name(sources: &[String], partition: Partition) -> Option<String> {
    Some(format!("{}/{}", sources.get(usize::from(partition.source.0))?, partition.index))
}

struct Line<'a> {
    state: &'a BindingState,
    sources: &'a [String],
}

impl Serialize for Line<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Line { state, sources } = self;
        let named = |partition: &Partition| name(sources, *partition).unwrap_or_default();
        let mut line = serializer.serialize_map(Some(6))?;
        line.serialize_entry("epoch", &state.epoch)?;
        line.serialize_entry("clock", &state.clock)?;
        line.serialize_entry("ends", &Ends(state, sources))?;
        line.serialize_entry("idle", &state.idle.iter().map(named).collect::<Vec<_>>())?;
        line.serialize_entry("watermark", &state.watermark)?;
        line.serialize_entry("final", &state.is_final)?;
        line.end()
    }
}

/// The ends in the order of the partitions: by name they would stand `0, 1, 10, 2`.
struct Ends<'a>(&'a BindingState, &'a [String]);

impl Serialize for Ends<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let ends = self.0.partitions.iter().map(|(p, state)| (name(self.1, *p).unwrap_or_default(), state.end));
        serializer.collect_map(ends)
    }
}

/// A line of a bindings file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordedEpoch {
    /// The epoch.
    pub epoch: Epoch,
    /// Its clock.
    pub clock: Micros,
    /// The next offset to read of every partition so far, by `source/index`.
    pub ends: BTreeMap<String, u64>,
    /// The idle partitions.
    #[serde(default)]
    pub idle: BTreeSet<String>,
    /// W(epoch), when the line gives one.
    #[serde(default, deserialize_with = "given")]
    pub watermark: Option<Option<Micros>>,
    /// The bounded input has ended.
    #[serde(default, rename = "final")]
    pub is_final: bool,
}

/// Tells `null`, there is no watermark yet, from a line that says nothing about it.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<Micros>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// Parses a bindings file. Blank lines are skipped.
///
/// # Errors
/// When a line is not one of the specification, or does not follow the one before it; the error names its number.
pub fn parse_recorded(text: &str) -> Result<Vec<RecordedEpoch>> {
    let mut epochs: Vec<RecordedEpoch> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let number = index + 1;
        let at = || format!("cannot read line {number} of the bindings file");
        let epoch: RecordedEpoch = serde_json::from_str(line).map_err(|e| {
            Error::user(at()).because(e).hint("each line is one object, as 'dataflow bindings export' writes it")
        })?;
        if let Err(how) = check(epochs.last(), &epoch) {
            return Err(Error::user(format!("{}: {how}", at())));
        }
        epochs.push(epoch);
    }
    Ok(epochs)
}

fn check(before: Option<&RecordedEpoch>, line: &RecordedEpoch) -> Result<(), String> {
    let epoch = line.epoch;
    if epoch == 0 {
        return Err("epoch 0 is before the first one".into());
    }
    for partition in line.ends.keys() {
        let index = partition.rsplit_once('/').filter(|(source, _)| !source.is_empty()).map(|(_, index)| index);
        if index.is_none_or(|index| index.parse::<u32>().map(|n| n.to_string()).as_deref() != Ok(index)) {
            return Err(format!("'{partition}' is not a partition, such as 'login-events/0'"));
        }
    }
    if let Some(unknown) = line.idle.iter().find(|partition| !line.ends.contains_key(*partition)) {
        return Err(format!("the idle partition '{unknown}' has no end"));
    }
    let Some(before) = before else { return Ok(()) };
    if epoch <= before.epoch {
        return Err(format!("epoch {epoch} does not follow epoch {}", before.epoch));
    }
    if line.clock < before.clock {
        return Err(format!("the clock falls from {} to {}", before.clock, line.clock));
    }
    for (partition, end) in &before.ends {
        match line.ends.get(partition) {
            None => return Err(format!("the end of '{partition}' is missing")),
            Some(now) if now < end => return Err(format!("the end of '{partition}' falls from {end} to {now}")),
            Some(_) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataflow_core::{Advance, SourceId};

    const EXPECTED: &str = concat!(
        r#"{"epoch":7,"clock":"2026-03-01T09:00:00.000000Z","ends":{"login-events/2":12,"login-events/10":0},"#,
        r#""idle":[],"watermark":null,"final":false}"#,
        "\n",
        r#"{"epoch":9,"clock":"2026-03-01T09:00:00.000001Z","ends":{"login-events/2":12,"login-events/10":3},"#,
        r#""idle":["login-events/2"],"watermark":"2026-03-01T08:59:55.000000Z","final":true}"#,
        "\n",
    );

    fn rows() -> Vec<Binding> {
        let clock = Micros::parse("2026-03-01T09:00:00Z").unwrap();
        let partition = |index| Partition { source: SourceId(0), index };
        let advance = |index, end| (partition(index), Advance { end, records: 0, hash: 0, newest: None });
        vec![
            Binding { epoch: 7, clock, advances: [advance(2, 12), advance(10, 0)].into(), ..Binding::default() },
            Binding {
                epoch: 9,
                clock: clock.plus(1),
                advances: [advance(10, 3)].into(),
                idle: Some([partition(2)].into()),
                watermark: Some(clock.plus(-5_000_000)),
                is_final: true,
                ..Binding::default()
            },
        ]
    }

    #[test]
    fn what_is_written_is_read() {
        let mut out = Vec::new();
        let sources = ["login-events".to_owned()];
        let state = write_rows(BindingState::default(), rows().into_iter().map(Ok), &sources, &mut out).unwrap();
        assert_eq!(std::str::from_utf8(&out).unwrap(), EXPECTED);
        let read = parse_recorded(EXPECTED).unwrap();
        assert_eq!(read[0].watermark, Some(None));
        assert_eq!(read[1].watermark, Some(state.watermark));
        assert_eq!(read[1].ends, [("login-events/2".to_owned(), 12), ("login-events/10".to_owned(), 3)].into());
        assert_eq!(read[1].idle, ["login-events/2".to_owned()].into());
        assert_eq!((read[1].epoch, read[1].clock, read[1].is_final), (9, state.clock, true));
        assert!(write_rows(BindingState::default(), rows().into_iter().map(Ok), &[], &mut Vec::new()).is_err());
    }

    #[test]
    fn what_may_be_left_out_may_be_left_out() {
        let read =
            parse_recorded("\n{\"epoch\":1,\"clock\":\"2026-03-01T09:00:00Z\",\"ends\":{\"dbz.public.users/0\":4}}")
                .unwrap();
        assert_eq!((read[0].watermark, read[0].is_final, read[0].idle.len()), (None, false, 0));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let good = r#"{"epoch":2,"clock":"2026-03-01T09:00:00Z","ends":{"a/0":4}}"#;
        for (line, how) in [
            (r#"{"epoch":3,"clock":"2026-03-01T09:00:00Z"}"#, "ends"),
            (r#"{"epoch":3,"clock":"noon","ends":{"a/0":4}}"#, "'noon'"),
            (r#"{"epoch":3,"clock":"2026-03-01T09:00:00Z","ends":{"a/0":4},"fnal":true}"#, "fnal"),
            (r#"{"epoch":2,"clock":"2026-03-01T09:00:00Z","ends":{"a/0":4}}"#, "does not follow"),
            (r#"{"epoch":3,"clock":"2026-03-01T08:00:00Z","ends":{"a/0":4}}"#, "clock falls"),
            (r#"{"epoch":3,"clock":"2026-03-01T09:00:00Z","ends":{"a/0":3}}"#, "falls from 4 to 3"),
            (r#"{"epoch":3,"clock":"2026-03-01T09:00:00Z","ends":{"b/0":4}}"#, "'a/0' is missing"),
            (r#"{"epoch":3,"clock":"2026-03-01T09:00:00Z","ends":{"a/0":4,"b":1}}"#, "'b' is not a partition"),
            (r#"{"epoch":3,"clock":"2026-03-01T09:00:00Z","ends":{"a/0":4,"a/00":1}}"#, "'a/00' is not a partition"),
            (r#"{"epoch":3,"clock":"2026-03-01T09:00:00Z","ends":{"a/0":4},"idle":["a/1"]}"#, "'a/1' has no end"),
            ("[]", "line 2"),
        ] {
            let error = parse_recorded(&format!("{good}\n{line}\n")).unwrap_err().to_string();
            assert!(error.contains("line 2") && error.contains(how), "{line}: {error}");
        }
    }
}
