//! What is read is the same however lines are cut into objects, and wherever lives end.

use crate::world::{Life, Packed, World, lines, packed, put};
use bytes::Bytes;
use dataflow_core::Record;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn how() -> impl Strategy<Value = Packed> {
    prop_oneof![Just(Packed::Plain), Just(Packed::Gzip), Just(Packed::Zstd)]
}

/// A line: mostly short, now and then empty, of white space, not UTF-8, or long.
fn line() -> impl Strategy<Value = Vec<u8>> {
    let short = proptest::collection::vec(any::<u8>().prop_map(|byte| if byte == b'\n' { b' ' } else { byte }), 0..20);
    prop_oneof![8 => short, 1 => Just(b"\r".to_vec()), 1 => (1_000..100_000_usize).prop_map(|n| vec![b'x'; n])]
}

/// An object's lines, how it is packed, and whether its last line has a line feed.
#[derive(Clone, Debug)]
struct Cut {
    lines: Vec<Vec<u8>>,
    how: Packed,
    is_ended: bool,
}

impl Cut {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.lines.join(&b'\n');
        // Without its line feed an empty last line is none.
        let needs_end = self.lines.last().is_some_and(Vec::is_empty);
        if !self.lines.is_empty() && (self.is_ended || needs_end) {
            bytes.push(b'\n');
        }
        // What is packed is told by the first bytes.
        assert!(![&[0x1f, 0x8b][..], &[0x28, 0xb5, 0x2f, 0xfd]].iter().any(|magic| bytes.starts_with(magic)));
        packed(self.how, &bytes)
    }
}

fn cut() -> impl Strategy<Value = Cut> {
    let lines = proptest::collection::vec(line(), 0..12);
    (lines, how(), any::<bool>()).prop_map(|(mut lines, how, is_ended)| {
        if let Some(first) = lines.first_mut().filter(|first| first.starts_with(&[0x1f]) || first.starts_with(b"(")) {
            first.insert(0, b'-');
        }
        Cut { lines, how, is_ended }
    })
}

/// What a run does next.
#[derive(Clone, Debug)]
enum Step {
    /// An object appears under a key of this rank.
    Put(Cut, u16),
    /// The life reads so many records.
    Read(usize),
    /// What was read is bound.
    Bind,
    /// A checkpoint is made of what is bound.
    Checkpoint,
    /// The process is killed, or the machine loses power; the next life replays from the checkpoint.
    Die { loses_power: bool },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (cut(), any::<u16>()).prop_map(|(cut, rank)| Step::Put(cut, rank)),
        4 => (1..30_usize).prop_map(Step::Read),
        3 => Just(Step::Bind),
        1 => Just(Step::Checkpoint),
        2 => any::<bool>().prop_map(|loses_power| Step::Die { loses_power }),
    ]
}

/// One source over lives.
struct Run {
    folder: tempfile::TempDir,
    world: World,
    life: Life,
    /// What was read, in order; of this the first `bound` stand for ever.
    read: Vec<Record>,
    bound: usize,
    checkpoint: usize,
    objects: BTreeMap<String, Vec<Vec<u8>>>,
}

impl Run {
    fn new() -> Run {
        let folder = tempfile::tempdir().unwrap();
        let world = World::of_folder(folder.path());
        let life = world.begin(0).unwrap();
        let (read, objects) = (Vec::new(), BTreeMap::new());
        Run { folder, world, life, read, bound: 0, checkpoint: 0, objects }
    }

    fn put(&mut self, cut: &Cut, rank: u16) {
        let key = format!("{:02}/{rank:05}-{}", rank % 7, self.objects.len());
        put(self.folder.path(), &key, &cut.bytes());
        self.objects.insert(key, cut.lines.clone());
    }

    fn die(&mut self, loses_power: bool) {
        if loses_power {
            self.world.storage.crash(&mut |below| below / 2);
        }
        self.life = self.world.begin(self.checkpoint as u64).unwrap();
        let again = self.life.read(Some(self.bound as u64), 7).unwrap();
        assert_eq!(again, self.read[self.checkpoint..self.bound], "a replay reads what is bound");
        self.read.truncate(self.bound);
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Put(cut, rank) => self.put(cut, *rank),
            Step::Read(most) => self.read.extend(self.life.read_some(*most).unwrap()),
            Step::Bind => self.bound = self.read.len(),
            Step::Checkpoint => self.checkpoint = self.bound,
            Step::Die { loses_power } => self.die(*loses_power),
        }
    }

    /// Reads to the end: every line of every object once, in the order of its object.
    fn check(&mut self) {
        self.read.extend(self.life.read(None, 50).unwrap());
        let offsets: Vec<u64> = self.read.iter().map(|record| record.offset).collect();
        assert_eq!(offsets, (0..self.read.len() as u64).collect::<Vec<_>>());
        let mut by_key: BTreeMap<String, Vec<Vec<u8>>> =
            self.objects.keys().map(|key| (key.clone(), Vec::new())).collect();
        for record in &self.read {
            let key = String::from_utf8(record.key.as_ref().unwrap().to_vec()).unwrap();
            by_key.get_mut(&key).unwrap().push(record.value.as_ref().unwrap().to_vec());
        }
        assert_eq!(by_key, self.objects);
        let mut keys: Vec<_> = self.read.iter().map(|record| record.key.clone()).collect();
        keys.dedup();
        assert_eq!(keys.len(), self.objects.values().filter(|lines| !lines.is_empty()).count(), "objects do not mix");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn each_line_is_read_once_over_lives_that_end_anywhere(steps in proptest::collection::vec(step(), 1..60)) {
        let mut run = Run::new();
        steps.iter().for_each(|step| run.step(step));
        run.check();
    }

    #[test]
    fn lines_are_the_same_in_whatever_objects(cuts in proptest::collection::vec(cut(), 1..20)) {
        let folder = tempfile::tempdir().unwrap();
        let mut life = World::of_folder(folder.path()).begin(0).unwrap();
        for (rank, cut) in cuts.iter().enumerate() {
            put(folder.path(), &format!("{rank:03}"), &cut.bytes());
        }
        let all: Vec<Option<Bytes>> = cuts.iter().flat_map(|cut| &cut.lines).map(|line| Some(line.clone().into())).collect();
        prop_assert_eq!(lines(&life.read(None, 1_000).unwrap()), all);
    }
}

#[test]
fn an_object_larger_than_a_range_is_read_on_in_its_midst() {
    let lines: Vec<String> = (0..60_000).map(|n| format!("{n:09} {}", "y".repeat(100 + n % 300))).collect();
    for how in [Packed::Plain, Packed::Gzip, Packed::Zstd] {
        let folder = tempfile::tempdir().unwrap();
        let world = World::of_folder(folder.path());
        put(folder.path(), "large", &packed(how, lines.join("\n").as_bytes()));
        let first = world.begin(0).unwrap().read(None, 10_000).unwrap();
        assert_eq!(first.len(), lines.len(), "{how:?}");
        let again = world.begin(41_234).unwrap().read(Some(60_000), 1_000).unwrap();
        assert!(again == first[41_234..], "{how:?}");
    }
}
