//! `loadgen pressure`: takes processors, memory and disk from whoever runs beside it, for a while: how does a job bear a bad neighbour?

use crate::{Machine, Output, stop_on_signals};
use clap::Args;
use dataflow_core::{Clock, Error, Result};
use serde_json::json;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

pub(crate) const EXAMPLES: &str = "Examples:\n  loadgen pressure --cpus 2 --seconds 30\n  \
    loadgen pressure --memory-mb 4096 --disk /var/lib/dataflow --disk-mb 512\n\nExit codes: see loadgen --help.";

/// Written at a time, and read again by nobody.
const CHUNK: usize = 1 << 20;
/// Chunks between two waits for the disk.
const CHUNKS_PER_SYNC: u64 = 16;
/// A page of memory is touched once in so many bytes.
const PAGE: usize = 4_096;
/// How often memory is touched, so that it stays where it is.
const TOUCH_EVERY: Duration = Duration::from_millis(500);

#[derive(Args)]
pub(crate) struct PressureArgs {
    /// Threads that compute without end.
    #[arg(long, default_value_t = 0)]
    cpus: usize,
    /// Memory that is held and touched, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 0)]
    memory_mb: usize,
    /// A folder on the disk that is written to, synced each 16 MiB; the file goes at the end.
    #[arg(long, value_name = "FOLDER")]
    disk: Option<PathBuf>,
    /// The most that lies on the disk at a time, in MiB; then it is written over.
    #[arg(long, value_name = "MIB", default_value_t = 256, requires = "disk")]
    disk_mb: u64,
    /// For how long [default: until Ctrl-C].
    #[arg(long)]
    seconds: Option<f64>,
}

pub(crate) fn run(arguments: &PressureArgs, output: Output) -> Result<()> {
    let PressureArgs { cpus, memory_mb, disk, disk_mb, seconds } = arguments;
    if *cpus == 0 && *memory_mb == 0 && disk.is_none() {
        return Err(Error::user("press on nothing").hint("say --cpus, --memory-mb or --disk"));
    }
    let (clock, stop) = (Machine::new(), stop_on_signals()?);
    let ends = seconds.map(Duration::from_secs_f64);
    let is_over = || stop.load(SeqCst) || ends.is_some_and(|ends| clock.monotonic() >= ends);
    let (rounds, written) = (AtomicU64::new(0), AtomicU64::new(0));
    let failed = AtomicBool::new(false);
    let on_disk = thread::scope(|scope| {
        for _ in 0..*cpus {
            scope.spawn(|| compute(&rounds, || is_over() || failed.load(SeqCst)));
        }
        if *memory_mb > 0 {
            scope.spawn(|| hold(memory_mb << 20, || is_over() || failed.load(SeqCst)));
        }
        let done = disk.as_deref().map_or(Ok(()), |folder| write(folder, disk_mb << 20, &written, is_over));
        failed.store(done.is_err(), SeqCst);
        done
    });
    on_disk?;
    let (took, written) = (clock.monotonic().as_secs_f64(), written.load(SeqCst));
    match output {
        Output::Text => {
            println!("pressed for {took:.1} s: {cpus} threads, {memory_mb} MiB held, {} MiB written", written >> 20)
        }
        Output::Json => println!(
            "{}",
            json!({"seconds": took, "cpus": cpus, "memory_mb": memory_mb, "bytes_written": written, "rounds": rounds.load(SeqCst)})
        ),
    }
    Ok(())
}

/// Computes until it is over.
fn compute(rounds: &AtomicU64, is_over: impl Fn() -> bool) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    while !is_over() {
        for _ in 0..100_000 {
            state = std::hint::black_box(state ^ (state << 13) ^ (state >> 7)).wrapping_mul(0x2545_f491_4f6c_dd1d);
        }
        rounds.fetch_add(1, SeqCst);
    }
}

/// Holds so many bytes, all of them in memory.
fn hold(bytes: usize, is_over: impl Fn() -> bool) {
    let mut held = vec![0_u8; bytes];
    while !is_over() {
        for page in held.chunks_mut(PAGE) {
            page[0] = std::hint::black_box(page[0].wrapping_add(1));
        }
        thread::park_timeout(TOUCH_EVERY);
    }
}

/// Writes one file over and over.
fn write(folder: &Path, most: u64, written: &AtomicU64, is_over: impl Fn() -> bool) -> Result<()> {
    let path = folder.join(format!("loadgen-pressure-{}.tmp", std::process::id()));
    let done = write_file(&path, most, written, is_over);
    let removed = std::fs::remove_file(&path);
    done.and(removed)
        .map_err(|cause| Error::outside(format!("press on the disk by '{}'", path.display())).because(cause))
}

fn write_file(path: &Path, most: u64, written: &AtomicU64, is_over: impl Fn() -> bool) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    let mut chunk = vec![0_u8; CHUNK];
    let (mut number, mut at) = (0_u64, 0);
    while !is_over() {
        // Each chunk differs, so that no file system stores it once.
        chunk[..8].copy_from_slice(&number.to_be_bytes());
        if at + CHUNK as u64 > most.max(CHUNK as u64) {
            at = file.seek(SeekFrom::Start(0))?;
        }
        file.write_all(&chunk)?;
        (number, at) = (number + 1, at + CHUNK as u64);
        if number.is_multiple_of(CHUNKS_PER_SYNC) {
            file.sync_data()?;
        }
        written.fetch_add(CHUNK as u64, SeqCst);
    }
    Ok(())
}
