//! The shop in the files of a case: `oneshop.ndjson`, `pageviews.ndjson`. They grow by whole lines.

use super::Target;
use crate::shop::Change;
use dataflow_core::{Error, Result};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// The files.
pub struct Folder {
    changes: Lines,
    /// Not when pageviews go elsewhere.
    pageviews: Option<Lines>,
}

impl Folder {
    /// Begins the files anew.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn create(folder: &Path, with_pageviews: bool) -> Result<Folder> {
        std::fs::create_dir_all(folder)
            .map_err(|cause| Error::outside(format!("create '{}'", folder.display())).because(cause))?;
        let pageviews = with_pageviews.then(|| Lines::create(folder.join("pageviews.ndjson"))).transpose()?;
        Ok(Folder { changes: Lines::create(folder.join("oneshop.ndjson"))?, pageviews })
    }
}

impl Target for Folder {
    fn transaction(&mut self, changes: &[Change]) -> Result<()> {
        changes.iter().try_for_each(|change| self.changes.write(&change.line()))
    }

    fn pageview(&mut self, line: &[u8], _: u64) -> Result<()> {
        self.pageviews.as_mut().map_or(Ok(()), |file| file.write(line))
    }

    fn flush(&mut self) -> Result<()> {
        self.changes.flush()?;
        self.pageviews.as_mut().map_or(Ok(()), Lines::flush)
    }
}

/// A file of lines.
struct Lines {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Lines {
    fn create(path: PathBuf) -> Result<Lines> {
        let file = File::create(&path).map_err(|cause| failed(&path, cause))?;
        Ok(Lines { path, file: BufWriter::new(file) })
    }

    fn write(&mut self, line: &[u8]) -> Result<()> {
        let written = self.file.write_all(line).and_then(|()| self.file.write_all(b"\n"));
        written.map_err(|cause| failed(&self.path, cause))
    }

    fn flush(&mut self) -> Result<()> {
        self.file.flush().map_err(|cause| failed(&self.path, cause))
    }
}

fn failed(path: &Path, cause: std::io::Error) -> Error {
    Error::outside(format!("write '{}'", path.display())).because(cause)
}
