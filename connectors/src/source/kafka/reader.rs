//! One worker's share of a topic: partitions are assigned by hand, each with a queue of its own, and polled without blocking.
//!
//! Invariants: offsets come from the bindings alone, never from the group; a record is delivered once and in offset
//! order; the end of a partition is claimed only on the fetcher's own word, which is an offset; records that are gone
//! are an error unless the settings say otherwise, and then they are counted.

use super::KafkaSourceCounters;
use super::client::{Consumer, Logged, failed, is_transient};
use super::decision::{Bounds, Standing, standing, verdict};
use super::known::KnownTopic;
use super::queue::{BATCH, Item, PartitionQueue};
use super::topic;
use super::watch::{Listed, Report, Task, Watch};
use crate::kafka_settings::{KafkaSourceSettings, OnLoss, Start};
use dataflow_core::{Discovered, Error, Poll, Record, Result, SourceReader, Waker};
use rdkafka::consumer::{CommitMode, Consumer as _};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// A reader of a Kafka topic.
pub(super) struct KafkaReader {
    settings: Arc<KafkaSourceSettings>,
    counters: Arc<KafkaSourceCounters>,
    known: KnownTopic,
    /// Whether an earlier life of the job read the source.
    resumed: bool,
    consumer: Arc<Consumer>,
    worker: u32,
    peers: u32,
    wake: Waker,
    partitions: BTreeMap<u32, Assigned>,
    /// Started before the first partition is read: a replay must not wait in silence either.
    watch: Option<Watch>,
    /// The first discovery is done. What is read up to a bound before it is a replay.
    has_begun: bool,
    /// The offsets that the oldest kept checkpoint would restore.
    restorable: BTreeMap<u32, u64>,
    /// Reported by the watch and not handed on yet.
    appeared: Vec<Discovered>,
}

/// A partition being read.
struct Assigned {
    queue: PartitionQueue,
    /// The offset after the last record delivered.
    next: u64,
    /// Taken from the queue and not delivered yet: at most one batch.
    held: VecDeque<Record>,
    /// The partition was read up to this offset and had no more.
    end: Option<u64>,
    /// The broker refused the position, or ends below a bound, and the watch was asked why.
    in_doubt: bool,
    /// In a replay: the bound end.
    bound: Option<u64>,
    /// It ended below the offset to read from, and the settings say to wait.
    is_beyond: bool,
}

impl KafkaReader {
    pub(super) fn open(
        settings: Arc<KafkaSourceSettings>,
        counters: Arc<KafkaSourceCounters>,
        known: KnownTopic,
        worker: usize,
        peers: usize,
        wake: Waker,
    ) -> Result<KafkaReader> {
        let context = Logged { name: settings.topic.clone() };
        let consumer: Consumer = settings
            .consumer()?
            .create_with_context(context)
            .map_err(|e| Error::user(format!("creating the consumer of topic '{}'", settings.topic)).because(e))?;
        let number = |n: usize| u32::try_from(n).expect("a job has few workers");
        let (worker, peers) = (number(worker), number(peers));
        let consumer = Arc::new(consumer);
        Ok(KafkaReader {
            settings,
            counters,
            known,
            resumed: false,
            consumer,
            worker,
            peers,
            wake,
            partitions: BTreeMap::new(),
            watch: None,
            has_begun: false,
            restorable: BTreeMap::new(),
            appeared: Vec::new(),
        })
    }

    /// The first discovery, which may block: what exists, where it starts, and whether it may be read at all.
    fn begin(&mut self) -> Result<Vec<Discovered>> {
        self.partitions.values_mut().for_each(|assigned| assigned.bound = None); // the replay is over
        let name = &self.settings.topic;
        let ask = || topic::partitions(self.consumer.client(), name);
        let is_final = |found: &Option<u32>| found.is_some() || !self.resumed;
        let count = topic::settled(self.settings.look_interval(), is_final, ask)?
            .ok_or_else(|| topic::missing(name, &self.settings.brokers))?;
        let id = topic::id(&self.consumer, name);
        if self.worker == 0 {
            self.refuse_compacted()?;
            self.compare(id.as_deref())?;
        }
        let start = if self.resumed { Start::Earliest } else { self.settings.start };
        let share: BTreeSet<u32> = (0..count).filter(|index| index % self.peers == self.worker).collect();
        let mut found = Vec::new();
        for index in share.iter().filter(|index| !self.partitions.contains_key(index)) {
            found.push(Discovered { index: *index, start: topic::start(&self.consumer, name, *index, start)? });
        }
        self.watch()?.listed(Listed { known: share, id });
        self.has_begun = true;
        Ok(found)
    }

    fn watch(&mut self) -> Result<&Watch> {
        if self.watch.is_none() {
            let watch = Watch::start(Task {
                consumer: self.consumer.clone(),
                topic: self.settings.topic.clone(),
                worker: self.worker,
                peers: self.peers,
                interval: self.settings.discover_interval(),
                look_interval: self.settings.look_interval(),
                wake: self.wake.clone(),
            })?;
            watch.restorable(&self.restorable);
            self.watch = Some(watch);
        }
        Ok(self.watch.as_ref().expect("it was started above"))
    }

    /// Compares the topic with the one that an earlier life read, and keeps its id.
    fn compare(&self, id: Option<&str>) -> Result<()> {
        let (Some(now), before) = (id, self.known.id()?) else { return Ok(()) };
        if before.as_deref() == Some(now) {
            return Ok(());
        }
        if let Some(before) = before.filter(|_| self.resumed) {
            self.recreated(&format!("its id was '{before}' and is '{now}'"))?;
        }
        self.known.keep(now)
    }

    /// A compacted topic forgets records that were bound: a replay would find fewer.
    fn refuse_compacted(&self) -> Result<()> {
        let name = &self.settings.topic;
        if self.settings.allow_compacted {
            return Ok(());
        }
        match topic::setting(&self.consumer, name, c"cleanup.policy") {
            Ok(policy) if policy.contains("compact") => Err(Error::user(format!(
                "opening topic '{name}': it is compacted, so a replay may find fewer records than were read"
            ))
            .hint("set cleanup.policy=delete on the topic, or 'allow_compacted = true' if its keys never repeat")),
            Ok(_) => Ok(()),
            Err(error) => {
                tracing::warn!(topic = name, %error, "it is not known whether the topic is compacted");
                Ok(())
            }
        }
    }

    /// Takes what the watch found.
    fn take_reports(&mut self) -> Result<()> {
        let Some(watch) = &self.watch else { return Ok(()) };
        for report in watch.reports.drain() {
            match report {
                Report::Appeared(discovered) => self.appeared.push(discovered),
                Report::Bounds(index, bounds) => self.settle(index, bounds)?,
                Report::Recreated(why) => self.recreated(&why)?,
                Report::Broken(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn recreated(&self, why: &str) -> Result<()> {
        let name = &self.settings.topic;
        self.counters.recreated.fetch_add(1, Relaxed);
        // What a replay needs is in the old topic.
        let is_replaying = self.partitions.values().any(|assigned| assigned.bound.is_some());
        match self.settings.on_recreated {
            OnLoss::Skip if !is_replaying => {
                tracing::error!(topic = name, why, "the topic was created anew; records below the bound offsets are skipped");
                Ok(())
            }
            _ => Err(Error::doubt(format!("reading topic '{name}': it was deleted or created anew, {why}")).hint(
                "start the job over with a new lineage, or set 'on_recreated = \"skip\"' to wait until its offsets have passed the bound ones",
            )),
        }
    }

    /// Decides about a partition whose position the broker refused.
    fn settle(&mut self, index: u32, bounds: Bounds) -> Result<()> {
        let Some(Assigned { next, bound, is_beyond, .. }) = self.partitions.get(&index) else { return Ok(()) };
        let (next, was_beyond) = (*next, *is_beyond);
        if let Some(until) = bound.filter(|until| bounds.high < *until) {
            let name = &self.settings.topic;
            return Err(Error::doubt(format!(
                "replaying '{name}/{index}' from offset {next}: the partition ends at {}, the bindings say {until}",
                bounds.high
            ))
            .hint("records were lost (by an unclean leader election, say) or the topic was created anew; bring them back, or start over with a new data folder"));
        }
        let Some(admitted) = self.admit(index, next, bounds, was_beyond)? else {
            // Asked again until the partition has come so far.
            self.watch()?.ask(index, next);
            self.partitions.get_mut(&index).expect("it was looked up above").is_beyond = true;
            return Ok(());
        };
        if was_beyond {
            self.counters.skipped.fetch_add(next.saturating_sub(bounds.low), Relaxed);
        }
        self.unassign(index)?;
        self.read_from(index, admitted)
    }

    /// Where to read a partition that is to be read from `next`; `None`: nowhere yet. `was_beyond`: that was said before.
    fn admit(&self, index: u32, next: u64, bounds: Bounds, was_beyond: bool) -> Result<Option<u64>> {
        let name = &self.settings.topic;
        match standing(next, bounds) {
            Standing::Readable => Ok(Some(next)),
            Standing::Beyond if was_beyond => Ok(None),
            Standing::Lost(count) if self.settings.on_lost == OnLoss::Skip => {
                self.counters.lost.fetch_add(count, Relaxed);
                tracing::error!(
                    topic = name,
                    partition = index,
                    from = next,
                    to = bounds.low,
                    "offsets lost to retention are skipped"
                );
                Ok(Some(bounds.low))
            }
            Standing::Lost(count) => Err(Error::doubt(format!(
                "reading '{name}/{index}' from offset {next}: retention has removed {count} offsets, the oldest is {}",
                bounds.low
            ))
            .hint("restore a newer checkpoint, start over, or set 'on_lost = \"skip\"' to go on without them")),
            Standing::Beyond => self
                .recreated(&format!("'{name}/{index}' ends at {} and was read up to {next}", bounds.high))
                .map(|()| None),
        }
    }

    fn read_from(&mut self, index: u32, next: u64) -> Result<()> {
        let name = &self.settings.topic;
        let what = || format!("assigning '{name}/{index}' from offset {next}");
        let queue = PartitionQueue::take(&self.consumer, name, topic::partition(index), &self.wake)?;
        let mut list = TopicPartitionList::new();
        let offset = i64::try_from(next).map_err(|e| Error::doubt(what()).because(e))?;
        list.add_partition_offset(name, topic::partition(index), Offset::Offset(offset))
            .map_err(|e| failed(what(), e))?;
        self.consumer.incremental_assign(&list).map_err(|e| failed(what(), e))?;
        self.partitions.insert(index, Assigned::from(queue, next));
        Ok(())
    }

    fn unassign(&mut self, index: u32) -> Result<()> {
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.settings.topic, topic::partition(index));
        self.partitions.remove(&index);
        let what = || format!("giving up '{}/{index}'", self.settings.topic);
        self.consumer.incremental_unassign(&list).map_err(|e| failed(what(), e))
    }
}

impl SourceReader for KafkaReader {
    fn resume(&mut self) {
        self.resumed = true;
    }

    fn discover(&mut self) -> Result<Vec<Discovered>> {
        if !self.has_begun {
            return self.begin();
        }
        self.take_reports()?;
        let mut found = std::mem::take(&mut self.appeared);
        found.retain(|d| !self.partitions.contains_key(&d.index));
        Ok(found)
    }

    fn assign(&mut self, index: u32, next: u64) -> Result<()> {
        if self.partitions.contains_key(&index) {
            self.unassign(index)?;
        }
        if self.has_begun {
            return self.read_from(index, next);
        }
        // A restart: blocking is allowed, and what is wrong is better known before anything is read.
        let name = &self.settings.topic;
        let interval = self.settings.look_interval();
        let ask = || topic::partitions(self.consumer.client(), name);
        let count = topic::settled(interval, |found| found.is_some_and(|count| count > index), ask)?
            .ok_or_else(|| topic::missing(name, &self.settings.brokers))?;
        if index >= count {
            return Err(Error::doubt(format!(
                "reading '{name}/{index}' from offset {next}: the topic has {count} partitions only"
            ))
            .hint("it was created anew: start the job over with a new lineage"));
        }
        let ask = || topic::bounds(&self.consumer, name, index);
        // Who skips waits for it later, and not for each partition in turn.
        let may_skip = self.settings.on_recreated == OnLoss::Skip;
        let is_final = |bounds: &Bounds| may_skip || standing(next, *bounds) != Standing::Beyond;
        let bounds = topic::settled(interval, is_final, ask)?;
        let admitted = self.admit(index, next, bounds, false)?;
        self.watch()?;
        self.read_from(index, admitted.unwrap_or(next))?;
        self.partitions.get_mut(&index).expect("it is read from now on").is_beyond = admitted.is_none();
        Ok(())
    }

    fn poll(&mut self, index: u32, until: Option<u64>, budget: usize, out: &mut Vec<Record>) -> Result<Poll> {
        if !self.has_begun || self.partitions.get(&index).is_some_and(|assigned| assigned.in_doubt) {
            self.take_reports()?;
        }
        let name = &self.settings.topic;
        let assigned = self
            .partitions
            .get_mut(&index)
            .ok_or_else(|| Error::us(format!("polling '{name}/{index}', which is not assigned")))?;
        assigned.bound = until.filter(|_| !self.has_begun);
        let mut left = budget;
        assigned.deliver_held(until, &mut left, out);
        let mut failure = None;
        while left > 0 && assigned.held.is_empty() && failure.is_none() && until.is_none_or(|u| assigned.next < u) {
            if assigned.take(left, &mut failure) == 0 {
                break;
            }
            assigned.deliver_held(until, &mut left, out);
        }
        let poll = verdict(until, assigned.next, assigned.held.front().map(|r| r.offset), assigned.end, left);
        match failure {
            None => {
                self.doubt_short_end(index);
                Ok(poll)
            }
            Some((code, text)) => self.failed(index, code, &text).map(|()| Poll::Pending),
        }
    }

    /// Offsets up to the high watermark of the last fetch; transaction markers and aborted records count among them.
    fn lag(&self, index: u32) -> Option<u64> {
        let assigned = self.partitions.get(&index)?;
        assigned.queue.high_watermark().map(|high| high.saturating_sub(assigned.next))
    }

    fn checkpointed(&mut self, offsets: &BTreeMap<u32, u64>) {
        let mut list = TopicPartitionList::new();
        for (index, offset) in offsets.iter().filter(|(index, _)| self.partitions.contains_key(index)) {
            let offset = Offset::Offset(i64::try_from(*offset).unwrap_or(i64::MAX));
            let _ = list.add_partition_offset(&self.settings.topic, topic::partition(*index), offset);
        }
        if list.count() > 0
            && let Err(error) = self.consumer.commit(&list, CommitMode::Async)
        {
            tracing::warn!(topic = self.settings.topic, %error, "committing checkpointed offsets failed; only lag tools read them");
        }
    }

    fn restorable(&mut self, offsets: &BTreeMap<u32, u64>) {
        let own = offsets.iter().filter(|(index, _)| **index % self.peers == self.worker);
        self.restorable = own.map(|(index, offset)| (*index, *offset)).collect();
        if let Some(watch) = &self.watch {
            watch.restorable(&self.restorable);
        }
    }
}

impl Assigned {
    fn from(queue: PartitionQueue, next: u64) -> Assigned {
        let held = VecDeque::new();
        Assigned { queue, next, held, end: None, in_doubt: false, bound: None, is_beyond: false }
    }

    /// Moves a batch from the client's queue to the held records. Returns how many items there were.
    fn take(&mut self, limit: usize, failure: &mut Option<(RDKafkaErrorCode, String)>) -> usize {
        let (held, next, end) = (&mut self.held, self.next, &mut self.end);
        self.queue.drain(limit.min(BATCH), 0, |item| match item {
            // Below `next` stands only what a fetch from the middle of a batch brings along.
            Item::Record(record) if record.offset >= next => {
                *end = None;
                held.push_back(record);
            }
            Item::Record(_) => {}
            Item::End(offset) => *end = Some(offset),
            Item::Failed(code, text) => *failure = Some((code, text)),
        })
    }

    fn deliver_held(&mut self, until: Option<u64>, left: &mut usize, out: &mut Vec<Record>) {
        while *left > 0 && self.held.front().is_some_and(|r| until.is_none_or(|u| r.offset < u)) {
            let record = self.held.pop_front().expect("there is a front");
            self.next = record.offset + 1;
            out.push(record);
            *left -= 1;
        }
    }
}

impl KafkaReader {
    /// In a replay the partition must reach to the bound end; a log that was cut since would be waited for for ever.
    fn doubt_short_end(&mut self, index: u32) {
        let Some(Assigned { bound: Some(until), end: Some(end), .. }) = self.partitions.get(&index) else { return };
        if end < until {
            let until = *until;
            self.doubt(index, Some(until));
        }
    }

    /// Asks the watch for a partition's bounds, in which the offset to read from should be, or `offset`.
    fn doubt(&mut self, index: u32, offset: Option<u64>) {
        let assigned = self.partitions.get_mut(&index).expect("an assigned partition is in doubt");
        if !assigned.in_doubt {
            let offset = offset.unwrap_or(assigned.next);
            assigned.in_doubt = self.watch.as_ref().is_some_and(|watch| watch.ask(index, offset));
        }
    }

    /// What an error of the fetcher means.
    fn failed(&mut self, index: u32, code: RDKafkaErrorCode, text: &str) -> Result<()> {
        use RDKafkaErrorCode as E;
        let name = &self.settings.topic;
        match code {
            E::OffsetOutOfRange | E::AutoOffsetReset => {
                self.doubt(index, None);
                Ok(())
            }
            // A broker that restarts says so too; the watch finds out.
            E::UnknownTopic | E::UnknownTopicOrPartition | E::UnknownPartition | E::UnknownTopicId => {
                tracing::warn!(
                    topic = name,
                    partition = index,
                    text,
                    "the broker does not know the partition; asking again"
                );
                self.doubt(index, None);
                Ok(())
            }
            _ if is_transient(code) => {
                tracing::debug!(topic = name, partition = index, text, "the fetcher goes on by itself");
                Ok(())
            }
            E::BadCompression => Err(Error::outside(format!("reading '{name}/{index}': {text}")).because(code).hint(
                "a batch is damaged, or unfolds into more than 'receive.message.max.bytes', which 'client' may set",
            )),
            E::TopicAuthorizationFailed | E::GroupAuthorizationFailed => {
                Err(Error::user(format!("reading '{name}/{index}': {text}"))
                    .hint("allow the job's user to read the topic and its group"))
            }
            _ => Err(Error::outside(format!("reading '{name}/{index}': {text}")).because(code)),
        }
    }
}
