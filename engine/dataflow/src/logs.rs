//! The process's log on standard error, as text or one JSON object a line. Every line says which job, which generation of it, and
//! the newest epoch that was open when it was written.

use crate::command::LogFormat;
use dataflow_runtime::{Control, Plan};
use serde_json::{Map, Value};
use std::fmt::{self, Write};
use std::io::IsTerminal;
use std::sync::{Arc, OnceLock};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// What is logged unless the environment variable says otherwise: `DATAFLOW_LOG=info`, `DATAFLOW_LOG=dataflow_runtime=debug`.
/// A restore tells of itself: it may take minutes in which nothing else is seen of the job.
const LEVEL: &str = "warn,dataflow::restore=info";
const LEVEL_VARIABLE: &str = "DATAFLOW_LOG";

/// The one job of this process, once it is known.
static JOB: OnceLock<Running> = OnceLock::new();

struct Running {
    job: String,
    generation: u64,
    control: Arc<Control>,
}

/// Starts the log.
pub(crate) fn start(format: LogFormat) {
    let filter = tracing_subscriber::EnvFilter::try_from_env(LEVEL_VARIABLE).unwrap_or_else(|_| LEVEL.into());
    let lines = Lines { format, clears: format == LogFormat::Text && std::io::stderr().is_terminal() };
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).event_format(lines).init();
}

/// From now on lines name the plan's job.
pub(crate) fn name(plan: &Plan) {
    let control = plan.control.clone();
    let _ = JOB.set(Running { job: plan.name.clone(), generation: plan.generation.number, control });
}

struct Lines {
    format: LogFormat,
    /// What stands on a terminal's last line is drawn again and again: a line of the log takes its place.
    clears: bool,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let line = Line::of(time, event, JOB.get());
        if self.clears {
            out.write_str("\r\x1b[2K")?;
        }
        match self.format {
            LogFormat::Text => out.write_str(&line.text()?),
            LogFormat::Json => out.write_str(&line.json()),
        }
    }
}

struct Line {
    time: String,
    level: &'static str,
    target: String,
    message: String,
    job: Option<(String, u64, u64)>,
    fields: Map<String, Value>,
}

impl Line {
    fn of(time: String, event: &Event<'_>, running: Option<&Running>) -> Line {
        let meta = event.metadata();
        let job = running.map(|r| (r.job.clone(), r.generation, r.control.status.epoch_opened.get()));
        let (level, target) = (meta.level().as_str(), meta.target().to_owned());
        let mut line = Line { time, level, target, message: String::new(), job, fields: Map::new() };
        event.record(&mut line);
        line
    }

    fn json(self) -> String {
        let mut object = Map::new();
        object.insert("time".into(), self.time.into());
        object.insert("level".into(), self.level.into());
        if let Some((job, generation, epoch)) = self.job {
            object.insert("job".into(), job.into());
            object.insert("generation".into(), generation.into());
            object.insert("epoch".into(), epoch.into());
        }
        object.insert("target".into(), self.target.into());
        object.insert("message".into(), self.message.into());
        object.insert("fields".into(), self.fields.into());
        format!("{}\n", Value::from(object))
    }

    fn text(self) -> Result<String, fmt::Error> {
        let mut out = format!("{} {:>5} ", self.time, self.level);
        if let Some((job, generation, epoch)) = self.job {
            write!(out, "{job}/{generation} epoch {epoch} ")?;
        }
        write!(out, "{}: {}", self.target, self.message)?;
        for (name, value) in &self.fields {
            write!(out, " {name}={value}")?;
        }
        out.push('\n');
        Ok(out)
    }

    fn add(&mut self, field: &Field, value: Value) {
        self.fields.insert(field.name().to_owned(), value);
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        if field.name() == "message" { self.message = text } else { self.add(field, text.into()) }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" { value.clone_into(&mut self.message) } else { self.add(field, value.into()) }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_name_job_generation_and_epoch() {
        let line = || {
            let mut fields = Map::new();
            fields.insert("topic".into(), "a \"b\"".into());
            fields.insert("count".into(), 3.into());
            Line {
                time: "T".into(),
                level: "WARN",
                target: "dataflow".into(),
                message: "two\nlines".into(),
                job: Some(("logins".into(), 4, 99)),
                fields,
            }
        };
        assert_eq!(
            line().text().unwrap(),
            "T  WARN logins/4 epoch 99 dataflow: two\nlines topic=\"a \\\"b\\\"\" count=3\n"
        );
        let json = line().json();
        assert_eq!(json.lines().count(), 1, "one line an object: {json}");
        let read: Value = serde_json::from_str(&json).unwrap();
        assert_eq!((&read["job"], &read["generation"], &read["epoch"]), (&"logins".into(), &4.into(), &99.into()));
        assert_eq!((&read["message"], &read["fields"]["count"]), (&"two\nlines".into(), &3.into()));
        let nameless: Value = serde_json::from_str(&Line { job: None, ..line() }.json()).unwrap();
        assert_eq!(nameless.get("job"), None);
    }
}
