//! One file a verb; this one finds the profile and the data folder that each works on.

mod bindings;
mod caught;
mod check;
mod checkpoints;
mod run;
mod tag;
mod tail;

use crate::command::{BindingsVerb, CheckpointsVerb, Cli, JobArgs, Verb};
use crate::job::JobFile;
use crate::profile::{Profile, cache_folder};
use dataflow_core::{Error, Result};
use std::path::PathBuf;

/// Does what the command line says.
pub(crate) fn dispatch(job: &'static JobFile, cli: &Cli) -> Result<()> {
    match &cli.verb {
        Verb::Run(args) => run::run(job, args, cli.output),
        Verb::Check(args) => check::check(job, args, cli.output),
        Verb::Tail(args) => tail::tail(job, args),
        Verb::Tag(args) => tag::tag(job, args, cli.output),
        Verb::Bindings(BindingsVerb::Export { job: args, from, to }) => bindings::export(job, args, *from, *to),
        Verb::Checkpoints(CheckpointsVerb::List(args)) => checkpoints::list(job, args, cli.output),
        Verb::Checkpoints(CheckpointsVerb::Verify(args)) => checkpoints::verify(job, args, cli.output),
    }
}

/// The profile, and the data folder: `--data`, else the profile's `data`, else one in the user's cache folder.
fn open(job: &JobFile, args: &JobArgs) -> Result<(Profile, PathBuf)> {
    let mut profile = Profile::load(&args.job, args.profile.as_deref(), &args.set)?;
    let data = match &args.data {
        Some(data) => data.clone(),
        None => match profile.value::<String>("data")? {
            Some(data) => profile.path(&["data"], &data),
            None => cache_folder().join("dataflow").join("data").join(job.name).join(&profile.name),
        },
    };
    profile.name_data(&data);
    Ok((profile, data))
}

/// The data folder of a job that has run.
fn existing(job: &JobFile, args: &JobArgs) -> Result<(Profile, dataflow_state::storage::LocalStorage)> {
    let (profile, data) = open(job, args)?;
    if !data.is_dir() {
        return Err(Error::user(format!("reading the data folder '{}': there is none", data.display()))
            .hint("run the job first, or name its folder with --data"));
    }
    Ok((profile, dataflow_state::storage::LocalStorage::new(data)))
}
