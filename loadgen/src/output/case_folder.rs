//! Bounded traffic as a case: `login_events.ndjson`, `ip_geo.csv`, `bindings_one_epoch.ndjson` (one epoch that reads
//! everything), and `labels.ndjson`, the truth about the attacks.
//!
//! Lines stand in the order in which they are due, so a reader that follows them sees what a broker's consumer would.

use super::{Summary, write_file, write_labels};
use crate::geography;
use crate::logins::{Body, Labels, Login, LoginEvent, Traffic};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use dataflow_core::{Error, Micros, Result};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// The name of the source in the bindings.
const SOURCE: &str = "login-events";

#[derive(Serialize)]
#[serde(untagged)]
enum Line<'a> {
    Event { partition: u32, offset: u64, schema_version: u8, event: &'a LoginEvent },
    Raw { partition: u32, offset: u64, raw: Option<String> },
}

#[derive(Serialize)]
struct Epoch {
    epoch: u64,
    clock: Micros,
    ends: BTreeMap<String, u64>,
    idle: [u8; 0],
    watermark: Micros,
    #[serde(rename = "final")]
    is_final: bool,
}

/// Writes the folder.
///
/// # Errors
/// The traffic has no end, or the folder cannot be written.
pub fn write(traffic: &Traffic, out: &Path) -> Result<Summary> {
    if traffic.settings().count.is_none() {
        return Err(
            Error::user(format!("write endless traffic to '{}'", out.display())).hint("say --count or --seconds")
        );
    }
    let failed = |e: std::io::Error| Error::outside(format!("write '{}'", out.display())).because(e);
    std::fs::create_dir_all(out).map_err(failed)?;
    let mut file = BufWriter::new(File::create(out.join("login_events.ndjson")).map_err(failed)?);
    let mut records = vec![0; traffic.settings().partitions as usize];
    let mut labels = Labels::default();
    let mut due_us = 0;
    for (partition, offset, login) in traffic.stream() {
        write_line(&mut file, partition, offset, &login).map_err(failed)?;
        labels.observe(partition, offset, &login);
        records[partition as usize] += 1;
        due_us = login.due_us;
    }
    file.flush().map_err(failed)?;
    let clock = traffic.settings().start.plus(due_us as i64 + 1_000_000);
    let ends = records.iter().enumerate().map(|(partition, end)| (format!("{SOURCE}/{partition}"), *end)).collect();
    let epoch = Epoch { epoch: 1, clock, ends, idle: [], watermark: Micros::END_OF_TIME, is_final: true };
    let epoch = serde_json::to_string(&epoch).map_err(|e| Error::us("encode a binding").because(e))?;
    write_file(&out.join("bindings_one_epoch.ndjson"), format!("{epoch}\n").as_bytes())?;
    write_file(&out.join("ip_geo.csv"), geography::csv().as_bytes())?;
    let labels = labels.finish(traffic);
    write_labels(&labels, &out.join("labels.ndjson"))?;
    Ok(Summary { records, labels })
}

fn write_line(out: &mut impl Write, partition: u32, offset: u64, login: &Login) -> std::io::Result<()> {
    let line = match &login.body {
        Body::Event(event) => Line::Event { partition, offset, schema_version: event.version(), event },
        Body::Poison(bytes) => Line::Raw { partition, offset, raw: bytes.as_ref().map(|b| STANDARD.encode(b)) },
    };
    serde_json::to_writer(&mut *out, &line)?;
    out.write_all(b"\n")
}
