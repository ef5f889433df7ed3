//! All partitions as one stream, in the order in which records are due.

use super::{BLOCK, Login, Traffic};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// Yields (partition, offset, record).
#[derive(Debug)]
pub struct Stream<'a> {
    traffic: &'a Traffic,
    /// The due time of each partition's next record.
    next: BinaryHeap<Reverse<(u64, u32)>>,
    partitions: Vec<Cursor>,
}

#[derive(Debug, Default)]
struct Cursor {
    offset: u64,
    ready: VecDeque<Login>,
}

impl<'a> Stream<'a> {
    pub(super) fn new(traffic: &'a Traffic) -> Stream<'a> {
        let count = traffic.settings().partitions;
        let partitions = (0..count).map(|_| Cursor::default()).collect();
        let mut stream = Stream { traffic, next: BinaryHeap::new(), partitions };
        (0..count).for_each(|partition| stream.queue(partition));
        stream
    }

    /// Makes the partition's next record known, if there is one.
    fn queue(&mut self, partition: u32) {
        let cursor = &mut self.partitions[partition as usize];
        if self.traffic.length(partition).is_some_and(|length| cursor.offset >= length) {
            return;
        }
        if cursor.ready.is_empty() {
            cursor.ready = self.traffic.block(partition, cursor.offset / BLOCK).into();
        }
        let due = cursor.ready.front().map_or(0, |login| login.due_us);
        self.next.push(Reverse((due, partition)));
    }
}

impl Iterator for Stream<'_> {
    type Item = (u32, u64, Login);

    fn next(&mut self) -> Option<Self::Item> {
        let Reverse((_, partition)) = self.next.pop()?;
        let cursor = &mut self.partitions[partition as usize];
        let login = cursor.ready.pop_front()?;
        let offset = cursor.offset;
        cursor.offset += 1;
        self.queue(partition);
        Some((partition, offset, login))
    }
}
