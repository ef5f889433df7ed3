//! The production environment: real clocks, operating system randomness, a thread a task, and timely's worker threads.
//!
//! This is the one place where threads start and clocks are read; everything else is handed an [`Environment`]. A worker
//! that panics would leave its siblings hanging for ever, so the process ends at once instead (TIMELY.md section 1). Tasks are not
//! waited for when a job ends, so a program that ran one is ended by [`end_process`].
#![allow(clippy::disallowed_methods, reason = "this file is what the bans point to")]

use crate::job::JobScope;
use crate::plan::Plan;
use dataflow_core::{Clock, Environment, Error, Micros, Random, Result, Spawner, Task, TaskState, Waker};
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use timely::worker::Worker;

/// How long a worker parks at most: data, progress and activations end a park early.
const PARK_MAX: Duration = Duration::from_millis(50);

/// Of tasks in the background, as `nice` counts: beside a worker that is busy they get a tenth of a core that they share.
const BACKGROUND_NICE: i32 = 10;

/// Clocks, randomness and threads of this machine.
pub fn environment() -> Environment {
    Environment {
        clock: Arc::new(MachineClock { began: Instant::now() }),
        random: Arc::new(MachineRandom),
        spawner: Arc::new(Threads),
    }
}

/// Runs the plan on `plan.workers` threads until its input ends, it is stopped, or it fails.
///
/// # Errors
/// The first failure of any part.
pub fn run(plan: Arc<Plan>, build: impl Fn(&mut JobScope<'_>) -> Result<()> + Send + Sync + 'static) -> Result<()> {
    exit_on_panic();
    let shared = plan.clone();
    let config = timely::Config::process(plan.workers);
    let guards = timely::execute(config, move |worker| {
        shared.control.measures.graph.listen(worker);
        install(worker, &shared, &build);
        while worker.has_dataflows() && !shared.control.has_failed() {
            worker.step_or_park(Some(PARK_MAX));
        }
        for dataflow in worker.installed_dataflows() {
            worker.drop_dataflow(dataflow);
        }
    })
    .map_err(|cause| Error::us(format!("starting {} workers: {cause}", plan.workers)))?;
    for result in guards.join() {
        result.map_err(|cause| Error::us(format!("a worker ended abnormally: {cause}")))?;
    }
    plan.control.take_failure().map_or(Ok(()), Err)
}

/// Builds the job's graph on one worker.
pub fn install(worker: &mut Worker, plan: &Arc<Plan>, build: &dyn Fn(&mut JobScope<'_>) -> Result<()>) {
    worker.dataflow::<u64, _, _>(|scope| {
        let mut job = JobScope::new(scope, plan.clone());
        // Not finished after an error: after a gap the workers' channels would not be the same ones.
        if let Err(error) = build(&mut job).and_then(|()| job.finish()) {
            plan.control.fail(error);
        }
    });
}

/// Prints the panic, then ends the process: exit code 70. A panic that is caught on purpose is none of the engine's.
fn exit_on_panic() {
    static SET: AtomicBool = AtomicBool::new(false);
    if SET.swap(true, Ordering::SeqCst) {
        return;
    }
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if dataflow_core::is_caught() {
            tracing::debug!(%info, "a library panicked on what it was fed; the call has failed and the job goes on");
            return;
        }
        default(info);
        let name = std::thread::current().name().unwrap_or("").to_owned();
        if name.starts_with("timely") || name.starts_with("task") {
            end_process(dataflow_core::Fault::Us.exit_code());
        }
    }));
}

/// Ends the process with other threads as they stand, which is as safe as a power loss.
///
/// `exit` runs the destructors of RocksDB's, OpenSSL's and librdkafka's static variables; a task that is in a call of theirs then ends the
/// process with a signal ("pthread lock: Invalid argument") instead of `exit_code`. Materialize leaves by `_exit` too
/// (`mz_ore::process::exit_thread_safe`).
pub fn end_process(exit_code: u8) -> ! {
    signal_hook::low_level::exit(exit_code.into())
}

struct MachineClock {
    began: Instant,
}

impl Clock for MachineClock {
    fn wall(&self) -> Micros {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("the machine's clock is past 1970");
        Micros(since.as_micros() as i64)
    }

    fn monotonic(&self) -> Duration {
        self.began.elapsed()
    }
}

struct MachineRandom;

impl Random for MachineRandom {
    fn next_u64(&self) -> u64 {
        // std seeds each RandomState from the operating system's generator.
        std::collections::hash_map::RandomState::new().build_hasher().finish()
    }
}

/// A thread a task; it parks while the task waits.
struct Threads;

impl Spawner for Threads {
    fn spawn(&self, name: &str, task: Box<dyn Task>) -> Waker {
        thread(name, task, || ())
    }

    fn spawn_in_background(&self, name: &str, task: Box<dyn Task>) -> Waker {
        thread(name, task, go_last)
    }
}

/// Lowers the priority of this thread, and of those that it starts: to Linux each has one of its own. Where that is refused, it stays.
fn go_last() {
    if let Err(refused) = rustix::process::setpriority_process(None, BACKGROUND_NICE) {
        tracing::debug!(%refused, "a task in the background keeps its priority");
    }
}

fn thread(name: &str, mut task: Box<dyn Task>, first: fn()) -> Waker {
    let woken = Arc::new(AtomicBool::new(false));
    let seen = woken.clone();
    let run = move || {
        first();
        loop {
            match task.run() {
                TaskState::Done => return,
                TaskState::Waiting => {
                    while !seen.swap(false, Ordering::SeqCst) {
                        std::thread::park();
                    }
                }
                TaskState::Sleeping(most) => {
                    if !seen.swap(false, Ordering::SeqCst) {
                        std::thread::park_timeout(most);
                        seen.store(false, Ordering::SeqCst);
                    }
                }
            }
        }
    };
    let builder = std::thread::Builder::new().name(format!("task {name}"));
    let thread = builder.spawn(run).expect("the machine can start a thread").thread().clone();
    Waker::new(move || {
        woken.store(true, Ordering::SeqCst);
        thread.unpark();
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Set in the child process of the test below: how it ends.
    const CHILD: &str = "DATAFLOW_TEST_ENDS_BY";
    /// What the child ends with where destructors of C++ would run, which are hooks of `atexit`.
    const HOOK_HAS_RUN: u8 = 99;

    unsafe extern "C" {
        safe fn atexit(hook: extern "C" fn()) -> std::ffi::c_int;
    }

    extern "C" fn hook() {
        end_process(HOOK_HAS_RUN);
    }

    #[test]
    fn the_process_ends_without_destructors_and_by_a_panic_unless_it_is_caught() {
        if let Ok(ends_by) = std::env::var(CHILD) {
            exit_on_panic();
            assert_eq!(atexit(hook), 0);
            let ends = move || match &*ends_by {
                "itself" => (),
                "end_process" => end_process(3),
                "panic" => panic!("on purpose"),
                "caught panic" => assert_eq!(dataflow_core::caught(|| -> () { panic!("on purpose") }), None),
                other => unreachable!("{other}"),
            };
            std::thread::Builder::new().name("timely:work-0".into()).spawn(ends).unwrap().join().unwrap();
            return;
        }
        let after_hook = i32::from(HOOK_HAS_RUN);
        for (ends_by, expected) in
            [("itself", after_hook), ("end_process", 3), ("panic", 70), ("caught panic", after_hook)]
        {
            let this = "threads::tests::the_process_ends_without_destructors_and_by_a_panic_unless_it_is_caught";
            let child = std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", this, "--nocapture"])
                .env(CHILD, ends_by)
                .output()
                .unwrap();
            assert_eq!(child.status.code(), Some(expected), "{ends_by}: {}", String::from_utf8_lossy(&child.stderr));
        }
    }
}
