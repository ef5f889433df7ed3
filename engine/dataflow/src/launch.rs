//! From a job file to its program: `dataflow VERB jobs/NAME.rs` builds the file with cargo and hands the command line over.
//!
//! A file that a cargo package of its folder names as a binary is built there. Compile errors are shown as rustc shows them.

use dataflow_core::{Error, Result};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Builds the job file and replaces this process by its program.
///
/// # Errors
/// When the file is no job, or does not compile; does not return otherwise.
pub fn exec(job: &Path, arguments: impl Iterator<Item = std::ffi::OsString>) -> Result<()> {
    let program = build(job)?;
    let cause = Command::new(&program).args(arguments).exec();
    Err(Error::outside(format!("starting '{}'", program.display())).because(cause))
}

/// Builds the job file; the path of its program.
///
/// # Errors
/// When the file is no job, or does not compile.
pub fn build(job: &Path) -> Result<PathBuf> {
    let shown = job.display().to_string();
    if !job.is_file() {
        return Err(Error::user(format!("reading the job file '{shown}': there is none"))
            .hint("name a file such as jobs/login_anomalies.rs"));
    }
    let name = job.file_stem().and_then(|s| s.to_str()).filter(|_| job.extension().is_some_and(|e| e == "rs"));
    let name = name.ok_or_else(|| Error::user(format!("reading the job file '{shown}': it is no .rs file")))?;
    let folder = job.canonicalize().ok().and_then(|p| p.parent().map(Path::to_path_buf)).unwrap_or_default();
    let manifest = folder.join("Cargo.toml");
    if !manifest.is_file() {
        return Err(Error::user(format!("building the job file '{shown}': its folder has no Cargo.toml"))
            .hint("put the file into the project's jobs folder and name it there as a [[bin]]"));
    }
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args(["build", "--quiet", "--message-format=json-render-diagnostics", "--bin", name, "--manifest-path"])
        .arg(&manifest);
    if let Ok(profile) = std::env::var("DATAFLOW_CARGO_PROFILE") {
        cargo.args(["--profile", &profile]);
    }
    if std::env::var_os("CARGO_TARGET_DIR").is_none() {
        cargo.env("CARGO_TARGET_DIR", crate::profile::cache_folder().join("dataflow").join("target"));
    }
    let built = cargo.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let built = built.map_err(|cause| {
        Error::user(format!("building the job file '{shown}': cargo did not start")).because(cause).hint("install Rust")
    })?;
    if !built.status.success() {
        return Err(Error::user(format!("building the job file '{shown}': it does not compile, see above")));
    }
    let executables =
        built.stdout.split(|b| *b == b'\n').filter_map(|line| serde_json::from_slice::<serde_json::Value>(line).ok());
    let mut own = executables
        .filter(move |m| m["target"]["name"] == name)
        .filter_map(|m| m["executable"].as_str().map(PathBuf::from));
    own.next_back().ok_or_else(|| Error::us(format!("building the job file '{shown}': cargo named no program")))
}
