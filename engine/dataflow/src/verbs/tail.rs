//! `tail`: the committed rows of a local log, for `jq`.

use crate::command::TailArgs;
use crate::job::JobFile;
use crate::wiring::LOGS;
use dataflow_connectors::sink::local_log::Tail;
use dataflow_core::{Error, Result, Storage};
use signal_hook::consts::{SIGINT, SIGTERM};
use std::io::{BufWriter, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often a followed log is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

pub(super) fn tail(job: &JobFile, args: &TailArgs) -> Result<()> {
    let (profile, storage) = super::existing(job, &args.job)?;
    let storage: Arc<dyn Storage> = Arc::new(storage);
    let (mut sink, mut topics) = (None, Vec::new());
    for name in profile.names("sinks") {
        let table = profile.table(&["sinks", &name])?;
        let is_local = table.get("connector").and_then(|v| v.as_str()) == Some("local-log");
        let own: Vec<String> = table.get("topics").cloned().and_then(|v| v.try_into().ok()).unwrap_or_default();
        if is_local && own.contains(&args.topic) {
            sink = Some(name);
        }
        topics.extend(own.into_iter().filter(|_| is_local));
    }
    let place = format!("no local log of profile '{}' takes it: it", profile.name);
    let sink =
        sink.ok_or_else(|| crate::profile::unknown("topic", &args.topic, topics.iter().map(String::as_str), &place))?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, stop.clone())
            .map_err(|cause| Error::us("listening for signals").because(cause))?;
    }
    let mut tail = Tail::new(storage, &format!("{LOGS}/{sink}"), &args.topic, None);
    let mut out = BufWriter::new(std::io::stdout().lock());
    loop {
        let lines = tail.read()?;
        let is_empty = lines.is_empty();
        let written = lines.iter().try_for_each(|line| out.write_all(line).and_then(|()| out.write_all(b"\n")));
        match written.and_then(|()| out.flush()) {
            Err(cause) if cause.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
            other => other.map_err(|cause| Error::outside("writing to standard output").because(cause))?,
        }
        if is_empty && !args.follow || stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        if is_empty {
            std::thread::park_timeout(LOOK_AGAIN);
        }
    }
}
