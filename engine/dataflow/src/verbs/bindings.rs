//! `bindings export`: the binding log as the NDJSON of SEMANTICS "Bindings file". Reads only; the job may be running.

use crate::command::JobArgs;
use crate::job::JobFile;
use dataflow_core::{Epoch, Error, Result, Storage};
use dataflow_runtime::plan::BINDINGS;
use dataflow_state::binding_log::{export::write_rows, extent, rows};
use std::io::{BufWriter, Write};

pub(super) fn export(job: &JobFile, args: &JobArgs, from: Epoch, to: Epoch) -> Result<()> {
    let (_, storage) = super::existing(job, args)?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    write(&storage, from, to, &mut out)?;
    out.flush().map_err(|cause| Error::outside("writing the bindings to standard output").because(cause))
}

/// Writes the rows of the epochs `from..=to`.
pub(super) fn write(storage: &dyn Storage, from: Epoch, to: Epoch, out: &mut dyn Write) -> Result<()> {
    let Some(extent) = extent(storage, BINDINGS)? else { return Ok(()) };
    let rows = rows(storage, BINDINGS, from.max(extent.first), to)?;
    let base = rows.base().clone();
    write_rows(base, rows, &extent.header.sources, out).map(drop)
}
