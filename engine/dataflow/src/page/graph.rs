//! The job's graph as a person thinks of it: timely's operators without the plumbing between them, all workers side by side.

use dataflow_runtime::measures::graph::WorkerGraph;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Operators that only pass on, merge or watch: what they connect is connected directly.
/// A broadcast is a map, an exchange and a map.
const PLUMBING: [&str; 7] = ["Concatenate", "Map", "FlatMap", "Exchange", "Probe", "Inspect", "Restored"];

/// The graph at one moment.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Shown {
    /// Ascending by id.
    pub(crate) nodes: Vec<Node>,
    pub(crate) edges: Vec<Edge>,
    pub(crate) workers: Vec<WorkerTime>,
}

/// An operator. Lists are by worker.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Node {
    /// Its number in the dataflow.
    pub(crate) id: usize,
    pub(crate) name: String,
    pub(crate) busy_ns: Vec<u64>,
    pub(crate) activations: Vec<u64>,
    /// Records that it took in, its control messages among them.
    pub(crate) received: Vec<u64>,
    /// Records sent to it and not taken in yet.
    pub(crate) queued: Vec<u64>,
}

/// Records that went from one operator to another, over all workers.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Edge {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) records: u64,
}

/// What a worker did with its time.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct WorkerTime {
    pub(crate) alive_ns: u64,
    pub(crate) parked_ns: u64,
}

/// One operator or channel of timely, summed up: what `/metrics` tells of it too.
pub(crate) fn nodes(workers: &BTreeMap<usize, WorkerGraph>) -> Vec<Node> {
    let mut nodes: BTreeMap<usize, Node> = BTreeMap::new();
    for (rank, worker) in workers.values().enumerate() {
        for operator in worker.operators.values() {
            // The dataflow itself, which is the progress protocol, has no number in it.
            let (id, name) = match operator.address[..] {
                [_] => (0, "progress"),
                [_, id] => (id, operator.name.as_str()),
                _ => continue,
            };
            let zeros = || vec![0; workers.len()];
            let node = nodes.entry(id).or_insert_with(|| Node {
                id,
                name: name.to_owned(),
                busy_ns: zeros(),
                activations: zeros(),
                received: zeros(),
                queued: zeros(),
            });
            (node.busy_ns[rank], node.activations[rank]) = (operator.busy_ns, operator.activations);
        }
    }
    let ranks: BTreeMap<usize, usize> = workers.keys().enumerate().map(|(rank, index)| (*index, rank)).collect();
    for (rank, worker) in workers.values().enumerate() {
        for channel in worker.channels.values() {
            let Some(node) = nodes.get_mut(&channel.to) else { continue };
            node.received[rank] += channel.received;
            for (target, sent) in channel.sent.iter().filter_map(|(index, sent)| Some((ranks.get(index)?, sent))) {
                node.queued[*target] += sent;
            }
        }
    }
    for node in nodes.values_mut() {
        node.queued.iter_mut().zip(&node.received).for_each(|(sent, received)| *sent = sent.saturating_sub(*received));
    }
    nodes.into_values().collect()
}

/// The graph without its plumbing.
pub(crate) fn shown(workers: &BTreeMap<usize, WorkerGraph>) -> Shown {
    let nodes = nodes(workers);
    let mut edges: BTreeMap<(usize, usize), u64> = BTreeMap::new();
    for channel in workers.values().flat_map(|worker| worker.channels.values()) {
        *edges.entry((channel.from, channel.to)).or_default() += channel.sent.values().sum::<u64>();
    }
    let is_plumbing = |node: &Node| node.id == 0 || PLUMBING.contains(&node.name.as_str());
    let plumbing: BTreeSet<usize> = nodes.iter().filter(|n| is_plumbing(n)).map(|n| n.id).collect();
    Shown {
        edges: contract(edges, &plumbing),
        nodes: nodes.into_iter().filter(|n| !plumbing.contains(&n.id)).collect(),
        workers: workers.values().map(|w| WorkerTime { alive_ns: w.alive_ns, parked_ns: w.parked_ns }).collect(),
    }
}

/// Takes nodes out; what came in goes on to all they led to, counted as it came in: a broadcast is not so many records.
fn contract(mut edges: BTreeMap<(usize, usize), u64>, plumbing: &BTreeSet<usize>) -> Vec<Edge> {
    for gone in plumbing {
        let into: Vec<(usize, u64)> =
            edges.iter().filter(|((_, to), _)| to == gone).map(|((f, _), n)| (*f, *n)).collect();
        let out: Vec<usize> = edges.keys().filter(|(from, _)| from == gone).map(|(_, to)| *to).collect();
        edges.retain(|(from, to), _| from != gone && to != gone);
        for (from, records) in into {
            for to in &out {
                *edges.entry((from, *to)).or_default() += records;
            }
        }
    }
    edges.into_iter().map(|((from, to), records)| Edge { from, to, records }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataflow_runtime::measures::graph::{ChannelMeasure, OperatorMeasure};

    /// A worker that sends half of what it sends to each of the two.
    fn worker(busy_ns: u64, received_last: u64) -> WorkerGraph {
        let names = ["Dataflow", "Source", "Exchange", "FlatMap", "Sink"];
        let operators = names.iter().enumerate().map(|(id, name)| {
            let address = if id == 0 { vec![0] } else { vec![0, id] };
            (id, OperatorMeasure { name: (*name).to_owned(), address, busy_ns, activations: 2 })
        });
        let channels = [(1, 2, 10, 10), (2, 3, 20, 20), (3, 4, 20, received_last)];
        let channels = channels.into_iter().map(|(from, to, sent, received)| {
            let sent = BTreeMap::from([(0, sent / 2), (1, sent / 2)]);
            ChannelMeasure { from, to, sent, received }
        });
        let mut graph = WorkerGraph::default();
        graph.operators.extend(operators);
        graph.channels.extend(channels.enumerate());
        graph
    }

    #[test]
    fn plumbing_is_left_out_and_what_it_connected_is_connected() {
        let shown = shown(&BTreeMap::from([(0, worker(3, 18)), (1, worker(4, 13))]));
        let names: Vec<&str> = shown.nodes.iter().map(|n| n.name.as_str()).collect();
        assert_eq!(names, ["Source", "Sink"]);
        assert_eq!(shown.edges, [Edge { from: 1, to: 4, records: 20 }]);
        let sink = &shown.nodes[1];
        assert_eq!((&sink.busy_ns, &sink.received, &sink.queued), (&vec![3, 4], &vec![18, 13], &vec![2, 7]));
        assert_eq!(shown.workers.len(), 2);
    }
}
