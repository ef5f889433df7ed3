//! Operators and channels as timely's own log tells of them: the job's graph, with time and records, by worker.
//!
//! ```text
//!  timely's log ──(a batch each step of the worker)──► WorkerGraph, under a lock of its own ──► snapshot
//!  Operates, Channels: what there is     Schedule: time in an operator, less that of those inside it
//!  Messages: records sent and received   Park: time in which the worker had nothing to do
//! ```
//!
//! An event costs a clock read and a push, and there is one for each batch and each activation, not for each record: a thousandth of
//! the CPU under load. Only production installs it; the simulation's workers have no log.

use super::lock;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use timely::logging::{ParkEvent, StartStop, TimelyEvent, TimelyEventBuilder};
use timely::worker::Worker;

/// A run that is told, at level debug: everything else on its worker waits as long, so it is what the slowest epochs are made of.
const LONG_RUN: Duration = Duration::from_millis(10);

/// An operator on one worker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OperatorMeasure {
    /// Its name.
    pub name: String,
    /// Where it stands: the dataflow, then its number in it. The same on every worker.
    pub address: Vec<usize>,
    /// Nanoseconds in which it ran, without those of operators inside it.
    pub busy_ns: u64,
    /// Times it ran.
    pub activations: u64,
}

/// A channel on one worker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ChannelMeasure {
    /// The numbers of the operator that sends and the one that receives, within the dataflow.
    pub from: usize,
    /// See `from`.
    pub to: usize,
    /// Records that this worker sent into it, by the worker that receives them.
    pub sent: BTreeMap<usize, u64>,
    /// Records that this worker took out of it.
    pub received: u64,
}

/// One worker.
#[derive(Clone, Debug, Default, Serialize)]
pub struct WorkerGraph {
    /// Operators by timely's id, which is the same on every worker.
    pub operators: BTreeMap<usize, OperatorMeasure>,
    /// Channels by timely's id.
    pub channels: BTreeMap<usize, ChannelMeasure>,
    /// Nanoseconds in which it had nothing to do.
    pub parked_ns: u64,
    /// Nanoseconds since its start, as of the last step.
    pub alive_ns: u64,
    #[serde(skip)]
    running: Vec<Running>,
    #[serde(skip)]
    parked_since: Option<Duration>,
}

/// An operator that has been started and not stopped.
#[derive(Clone, Debug)]
struct Running {
    id: usize,
    since: Duration,
    /// Time of the operators inside it.
    inside: Duration,
}

/// All workers of the process.
#[derive(Default)]
pub struct Graph(Mutex<BTreeMap<usize, Arc<Mutex<WorkerGraph>>>>);

impl Graph {
    /// Listens to the log of a worker; to be called before its dataflow is built.
    pub(crate) fn listen(&self, worker: &Worker) {
        let graph = Arc::new(Mutex::new(WorkerGraph::default()));
        lock(&self.0).insert(worker.index(), graph.clone());
        if let Some(mut register) = worker.log_register() {
            register.insert::<TimelyEventBuilder, _>("timely", move |now, events| {
                let mut graph = lock(&graph);
                for (at, event) in events.iter_mut().flat_map(|batch| batch.drain(..)) {
                    graph.note(at, event);
                }
                graph.alive_ns = now.as_nanos() as u64;
            });
        }
    }

    /// Every worker.
    pub fn snapshot(&self) -> BTreeMap<usize, WorkerGraph> {
        lock(&self.0).iter().map(|(index, graph)| (*index, lock(graph).clone())).collect()
    }
}

impl WorkerGraph {
    fn note(&mut self, at: Duration, event: TimelyEvent) {
        match event {
            TimelyEvent::Operates(new) => {
                let measure = OperatorMeasure { name: new.name, address: new.addr, ..OperatorMeasure::default() };
                self.operators.insert(new.id, measure);
            }
            TimelyEvent::Channels(new) => {
                let measure = ChannelMeasure { from: new.source.0, to: new.target.0, ..ChannelMeasure::default() };
                self.channels.insert(new.id, measure);
            }
            TimelyEvent::Schedule(event) => match event.start_stop {
                StartStop::Start => self.running.push(Running { id: event.id, since: at, inside: Duration::ZERO }),
                StartStop::Stop => self.stopped(at),
            },
            TimelyEvent::Messages(event) => {
                if let Some(channel) = self.channels.get_mut(&event.channel) {
                    let records = event.record_count.max(0) as u64;
                    let sum = if event.is_send {
                        channel.sent.entry(event.target).or_default()
                    } else {
                        &mut channel.received
                    };
                    *sum += records;
                }
            }
            TimelyEvent::Park(ParkEvent::Park(_)) => self.parked_since = Some(at),
            TimelyEvent::Park(ParkEvent::Unpark) => {
                let parked = self.parked_since.take().map_or(Duration::ZERO, |since| at.saturating_sub(since));
                self.parked_ns += parked.as_nanos() as u64;
            }
            _ => {}
        }
    }

    fn stopped(&mut self, at: Duration) {
        let Some(Running { id, since, inside }) = self.running.pop() else { return };
        let took = at.saturating_sub(since);
        if let Some(outer) = self.running.last_mut() {
            outer.inside += took;
        }
        if let Some(operator) = self.operators.get_mut(&id) {
            let took = took.saturating_sub(inside);
            operator.busy_ns += took.as_nanos() as u64;
            operator.activations += 1;
            if took >= LONG_RUN {
                let (ms, until_ms) = (took.as_millis() as u64, at.as_millis() as u64);
                tracing::debug!(operator = operator.name, ms, until_ms, "an operator held its worker for long");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use timely::dataflow::operators::{Input, Inspect, Probe, vec::Map};

    #[test]
    fn a_worker_tells_of_its_operators_channels_and_records() {
        let graph = Arc::new(Graph::default());
        let seen = graph.clone();
        timely::execute(timely::Config::process(2), move |worker| {
            graph.listen(worker);
            let (mut input, probe) = worker.dataflow::<u64, _, _>(|scope| {
                let (input, stream) = scope.new_input::<Vec<u64>>();
                (input, stream.map(|n| n + 1).inspect(|n| assert!(*n > 0)).probe().0)
            });
            input.send_batch(&mut (0..100).collect());
            input.advance_to(1);
            while probe.less_than(input.time()) {
                worker.step();
            }
        })
        .unwrap()
        .join()
        .into_iter()
        .for_each(|ended| ended.unwrap());
        let workers = seen.snapshot();
        assert_eq!(workers.keys().collect::<Vec<_>>(), [&0, &1]);
        for (index, worker) in &workers {
            let map = worker.operators.values().find(|o| o.name == "FlatMap").unwrap();
            let into_map = worker.channels.values().find(|c| c.to == map.address[1]).unwrap();
            assert_eq!((&into_map.sent, into_map.received), (&BTreeMap::from([(*index, 100)]), 100));
            assert!(map.busy_ns > 0 && map.activations > 0, "{map:?}");
            let all: u64 = worker.operators.values().map(|o| o.busy_ns).sum();
            assert!(all <= worker.alive_ns, "time inside an operator was counted twice: {worker:?}");
        }
    }
}
