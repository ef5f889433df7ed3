//! `--until-end`: a source that counts as ended where it is first read to its end.

use dataflow_core::{Discovered, Poll, Record, Result, Source, SourceReader, Waker};
use std::collections::BTreeMap;
use std::sync::Arc;

pub(crate) struct UntilEnd(pub(crate) Arc<dyn Source>);

struct Reader(Box<dyn SourceReader>);

impl Source for UntilEnd {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn open(&self, worker: usize, peers: usize, wake: Waker) -> Result<Box<dyn SourceReader>> {
        Ok(Box::new(Reader(self.0.open(worker, peers, wake)?)))
    }
}

impl SourceReader for Reader {
    fn resume(&mut self) {
        self.0.resume();
    }

    fn discover(&mut self) -> Result<Vec<Discovered>> {
        self.0.discover()
    }

    fn assign(&mut self, index: u32, next: u64) -> Result<()> {
        self.0.assign(index, next)
    }

    fn poll(&mut self, index: u32, until: Option<u64>, budget: usize, out: &mut Vec<Record>) -> Result<Poll> {
        let polled = self.0.poll(index, until, budget, out)?;
        Ok(if polled == Poll::AtEnd && until.is_none() { Poll::Ended } else { polled })
    }

    fn lag(&self, index: u32) -> Option<u64> {
        self.0.lag(index)
    }

    fn restorable(&mut self, offsets: &BTreeMap<u32, u64>) {
        self.0.restorable(offsets);
    }

    fn checkpointed(&mut self, offsets: &BTreeMap<u32, u64>) {
        self.0.checkpointed(offsets);
    }
}
