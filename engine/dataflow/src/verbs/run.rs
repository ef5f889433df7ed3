//! `run`: the job in this process.

use crate::command::{Output, RunArgs};
use crate::job::{Job, JobFile};
use crate::logs;
use crate::memory::Budget;
use crate::metrics::Exporter;
use crate::profile::Profile;
use crate::rehearsal::rehearse;
use crate::status::StatusFile;
use crate::terminal::Terminal;
use crate::wiring::{self, LOGS, Options, bindings_file};
use crate::{
    page,
    wiring::{ConnectorCounters, gather_counters},
};
use dataflow_connectors::sink::case_files::{export_case_files, export_case_table};
use dataflow_core::{Environment, Epoch, Error, Result, Storage, TableSink, Task, TaskState};
use dataflow_runtime::{Plan, prepare, threads};
use dataflow_state::folder::DataFolder;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// How often `status.json` and the terminal line are brought up to date.
const STATUS_EVERY: Duration = Duration::from_millis(250);
/// What a shell reports for a process that ended by Ctrl-C.
const INTERRUPTED: u8 = 130;

pub(super) fn run(job: &'static JobFile, args: &RunArgs, output: Output) -> Result<()> {
    let (profile, data) = super::open(job, &args.job)?;
    let folder = DataFolder::open(&data)?;
    // From here on the folder is ours: its status says how this process ends, whatever ends it.
    let status = Arc::new(StatusFile::new(&data));
    let ended = run_in(&folder, job, &profile, args, output, &status);
    status.end(&ended);
    match ended {
        Err(error) if error.restart => Err(start_anew(error)),
        ended => ended,
    }
}

/// Replaces this process by a new one of the same command, as a supervisor would: nothing of this life is left to trip over. Returns when
/// it can not.
fn start_anew(error: Error) -> Error {
    tracing::warn!("{error}; the job starts anew");
    let started = std::env::current_exe().map(|program| Command::new(program).args(std::env::args_os().skip(1)).exec());
    tracing::error!(cause = ?started, "the job could not be started anew");
    error
}

fn run_in(
    folder: &DataFolder,
    job: &'static JobFile,
    profile: &Profile,
    args: &RunArgs,
    output: Output,
    status: &Arc<StatusFile>,
) -> Result<()> {
    let storage: Arc<dyn Storage> = Arc::new(folder.storage());
    let environment = threads::environment();
    let options = Options { workers: args.workers, until_end: args.until_end };
    let wired = wiring::wire(job, profile, &environment, &storage, folder.path(), &options)?;
    rehearse(job, &wired, &storage, &wired.setup.live)?;
    let listening = args.page.map(page::listen).transpose()?;
    // Before the job is prepared: what is measured asks for the recorder once.
    let exporter = args.page.map(|_| Exporter::install(wired.connectors.clone()).map(Arc::new)).transpose()?;
    let budget = Budget::new(wired.setup.settings.memory_limit, wired.setup.backend.clone());
    let plan = prepare(wired.setup)?;
    logs::name(&plan);
    status.name(&plan);
    tracing::info!(
        profile = profile.name,
        workers = plan.workers,
        restored = plan.watermark_at_start().is_some(),
        "the job starts"
    );
    stop_on_signals(&plan)?;
    let watch = Watch {
        plan: plan.clone(),
        connectors: wired.connectors.clone(),
        exporter: exporter.clone(),
        status: status.clone(),
        ends: args.seconds.map(|s| environment.clock.monotonic() + Duration::from_secs(s)),
        environment: environment.clone(),
        terminal: Terminal::new(output),
        output,
        budget,
    };
    environment.spawner.spawn("status", Box::new(watch));
    if let (Some((listener, address)), Some(exporter)) = (listening, exporter) {
        page::serve(listener, plan.clone(), profile.name.clone(), &wired.job, exporter);
        eprintln!("live page: http://{address}");
    }
    let (graph, asked) = (wired.job.clone(), wired.job.asked);
    let ran = threads::run(plan.clone(), move |scope| (job.build)(&mut Job::new(scope, &graph)));
    gather_counters(&plan, &wired.connectors);
    tracing::info!(records = plan.control.status.records.get(), "the job has ended");
    Terminal::new(output).end(&plan, &ran);
    ran?;
    if output == Output::Text {
        // One that fits a screen.
        let tables = plan.control.measures.tables.snapshot();
        let small = tables.iter().filter(|(_, table)| table.rows > Some(0)).min_by_key(|(_, table)| table.rows);
        let sink = |of: &str| wired.tables.iter().find(|sink| sink.name() == of);
        if let Some(line) = small.and_then(|(name, table)| sink(&table.sink)?.reading_line(name)) {
            eprintln!("to read a table: {line}");
        }
    }
    for traffic in wired.generated.iter().filter(|_| output == Output::Text) {
        match super::caught::line(traffic, profile, &storage) {
            Ok(line) => line.iter().for_each(|line| eprintln!("{line}")),
            // Nothing of the job's: the run itself is done.
            Err(error) => tracing::warn!(%error, "the attacks that were caught could not be counted"),
        }
    }
    if let Some(out) = profile.path_var("output")? {
        export(profile, &storage, &out)?;
        let shapes = &asked.lock().expect("no holder panics").tables;
        for sink in &wired.tables {
            for table in sink.tables() {
                let shape = shapes.get(&table).expect("the rehearsal refuses a table that the job does not write");
                export_case_table(&table, shape, sink.rows(&table, shape)?, &out)?;
            }
        }
    }
    Ok(())
}

/// Profile `files`: the committed rows as plain files, and the epochs that explain them.
fn export(profile: &Profile, storage: &Arc<dyn Storage>, out: &Path) -> Result<()> {
    for sink in profile.names("sinks") {
        let table = profile.table(&["sinks", &sink])?;
        if !table.contains_key("topics") {
            continue;
        }
        let topics: Vec<String> = table.get("topics").cloned().and_then(|v| v.try_into().ok()).unwrap_or_default();
        export_case_files(storage, &format!("{LOGS}/{sink}"), &topics, out)?;
    }
    let path = out.join(bindings_file(profile)?);
    let failed = |cause| Error::outside(format!("writing '{}'", path.display())).because(cause);
    std::fs::create_dir_all(out).map_err(failed)?;
    let mut file = std::io::BufWriter::new(std::fs::File::create(&path).map_err(failed)?);
    super::bindings::write(&**storage, 1, Epoch::MAX, &mut file)?;
    std::io::Write::flush(&mut file).map_err(failed)
}

/// The first Ctrl-C ends the job at a checkpoint, the second at once.
fn stop_on_signals(plan: &Arc<Plan>) -> Result<()> {
    let seen = Arc::new(AtomicUsize::new(0));
    for signal in [SIGINT, SIGTERM] {
        let (plan, seen) = (plan.clone(), seen.clone());
        let waker =
            plan.environment.spawner.spawn("signals", Box::new(OnSignal { plan: plan.clone(), seen: seen.clone() }));
        // The handler only counts and unparks, both of which are safe in a signal.
        let handler = move || {
            if seen.fetch_add(1, Ordering::SeqCst) > 0 {
                threads::end_process(INTERRUPTED);
            }
            waker.wake();
        };
        // SAFETY: an atomic, `_exit`, and `Thread::unpark`, which takes no lock on Linux.
        unsafe { signal_hook::low_level::register(signal, handler) }
            .map_err(|cause| Error::us("listening for signals").because(cause))?;
    }
    Ok(())
}

struct OnSignal {
    plan: Arc<Plan>,
    seen: Arc<AtomicUsize>,
}

impl Task for OnSignal {
    fn run(&mut self) -> TaskState {
        if self.seen.load(Ordering::SeqCst) == 0 {
            return TaskState::Waiting;
        }
        eprintln!("\nstopping at a checkpoint; press Ctrl-C again to stop at once");
        self.plan.control.stop();
        TaskState::Done
    }
}

/// Writes the status, draws the line, keeps the memory budget, and ends a run of bounded length.
struct Watch {
    plan: Arc<Plan>,
    connectors: ConnectorCounters,
    exporter: Option<Arc<Exporter>>,
    status: Arc<StatusFile>,
    ends: Option<Duration>,
    environment: Environment,
    terminal: Terminal,
    output: Output,
    budget: Budget,
}

impl Watch {
    /// Ends the process as it stands, which is as safe as a power loss: its workers do not see that the job has failed.
    fn end_at_once(&self) {
        self.status.update();
        let control = &self.plan.control;
        control.failure::<()>(|error| threads::end_process(crate::say(error, self.output)));
    }
}

impl Task for Watch {
    fn run(&mut self) -> TaskState {
        let now = self.environment.clock.monotonic();
        if self.ends.is_some_and(|ends| now >= ends) && !self.plan.control.is_stopping() {
            self.plan.control.stop();
        }
        if self.budget.keep(&self.plan, now) {
            self.end_at_once();
        }
        gather_counters(&self.plan, &self.connectors);
        self.status.update();
        if let Some(exporter) = &self.exporter {
            exporter.keep_up();
        }
        self.terminal.draw(&self.plan, now);
        TaskState::Sleeping(STATUS_EVERY)
    }
}
