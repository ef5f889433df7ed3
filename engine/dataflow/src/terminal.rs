//! The terminal line of a running job, or the progress of its start, and its summary at the end, on standard error.

use crate::command::Output;
use crate::restoring::Restoring;
use crate::status::JobStatus;
use dataflow_core::Result;
use dataflow_runtime::Plan;
use dataflow_runtime::control::StatusSnapshot;
use dataflow_runtime::measures::tables::TableMeasure;
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::time::Duration;

/// How often the rate is taken, over what was read since.
const RATE_EVERY: Duration = Duration::from_secs(1);

pub(crate) struct Terminal {
    is_shown: bool,
    output: Output,
    last: (Duration, u64),
    rate: f64,
    restoring: Restoring,
}

impl Terminal {
    pub(crate) fn new(output: Output) -> Terminal {
        let is_shown = output == Output::Text && std::io::stderr().is_terminal();
        Terminal { is_shown, output, last: (Duration::ZERO, 0), rate: 0.0, restoring: Restoring::new(is_shown) }
    }

    /// Draws the line over itself.
    pub(crate) fn draw(&mut self, plan: &Plan, now: Duration) {
        let status = plan.control.status.snapshot();
        let since = now.saturating_sub(self.last.0);
        if since >= RATE_EVERY {
            self.rate = (status.records - self.last.1) as f64 / since.as_secs_f64();
            self.last = (now, status.records);
        }
        if !self.restoring.show(plan.control.measures.restore.snapshot(), now) && self.is_shown {
            let partitions = plan.control.measures.partitions.snapshot();
            let lag = partitions.values().filter_map(|p| p.lag).reduce(|a, b| a + b);
            let tables = plan.control.measures.tables.snapshot();
            let rows = tables.values().filter_map(|table| table.rows).sum();
            eprint!("\r\x1b[2K{}", line(&status, self.rate, lag, rows));
            let _ = std::io::stderr().flush();
        }
    }

    /// What the run came to.
    pub(crate) fn end(&self, plan: &Plan, end: &Result<()>) {
        let status = plan.control.status.snapshot();
        match self.output {
            Output::Json => {
                let status = JobStatus::ended(&plan.control, end);
                println!("{}", serde_json::to_string(&status).expect("counters are plain data"));
            }
            Output::Text => {
                if self.is_shown {
                    eprint!("\r\x1b[2K");
                }
                eprintln!("{}", summary(&status, &plan.control.measures.tables.snapshot()));
            }
        }
    }
}

/// `lag`: records that are there and not read, where a source knows.
fn line(status: &StatusSnapshot, rate: f64, lag: Option<u64>, tables: u64) -> String {
    let lag = lag.map_or(String::new(), |records| format!("lag {records}  "));
    let open = status.epoch_opened.saturating_sub(status.epoch_committed.max(status.epoch_durable));
    let said = if tables > 0 { format!("{tables} rows in tables") } else { alerts(status) };
    format!(
        "{rate:.0} records/s  {lag}epoch {} ({open} open)  checkpoint {}  {}",
        status.epoch_opened, status.epoch_checkpointed, said
    )
}

fn alerts(status: &StatusSnapshot) -> String {
    let labels = status.labelled.iter().filter_map(|(k, n)| Some(format!("{} {n}", k.strip_prefix("raised.")?)));
    let labels: Vec<String> = labels.collect();
    if labels.is_empty() { "no alerts yet".to_owned() } else { labels.join("  ") }
}

fn summary(status: &StatusSnapshot, tables: &BTreeMap<String, TableMeasure>) -> String {
    let mut lines = Vec::new();
    if tables.is_empty() {
        lines.push(format!(
            "records   {} read: {} accepted, {} late, {} dead letters, {} duplicates",
            status.records, status.accepted, status.late, status.dead_letters, status.duplicates
        ));
        lines.push(format!("alerts    {} raised, {} withdrawn", status.raised, status.withdrawn));
    } else {
        lines.push(format!("records   {} read, {} dead letters", status.records, status.dead_letters));
        lines.push("tables    rows, commits of this run, epoch of the last".to_owned());
    }
    lines.extend(tables.iter().map(|(name, table)| {
        let rows = table.rows.map_or_else(|| "?".to_owned(), |rows| rows.to_string());
        format!("          {name:<32}{rows:>9}{:>7}{:>9}", table.commits, table.epoch)
    }));
    lines.extend(
        status.labelled.iter().filter_map(|(k, n)| Some(format!("          {:<22}{n}", k.strip_prefix("raised.")?))),
    );
    lines.push(format!(
        "epochs    up to {}, {} replayed; {} transactions; {} checkpoints, the last of epoch {}",
        status.epoch_opened, status.replayed_epochs, status.transactions, status.checkpoints, status.epoch_checkpointed
    ));
    lines.join("\n")
}
