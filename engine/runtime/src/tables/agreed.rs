//! What all workers do at a cut, though each comes to it at its own time: as the first of them finds it.

use dataflow_core::Epoch;
use std::collections::BTreeMap;

/// What was found at cuts that some workers have not come to yet, and how many have.
pub(super) struct Agreed<T>(BTreeMap<Epoch, (T, usize)>);

impl<T> Default for Agreed<T> {
    fn default() -> Agreed<T> {
        Agreed(BTreeMap::new())
    }
}

impl<T: Clone> Agreed<T> {
    /// What holds at the cut of `epoch`; each of `workers` asks once.
    pub(super) fn at(&mut self, epoch: Epoch, workers: usize, find: impl FnOnce() -> T) -> T {
        let (found, asked) = self.0.entry(epoch).or_insert_with(|| (find(), 0));
        *asked += 1;
        let (found, is_last) = (found.clone(), *asked == workers);
        if is_last {
            self.0.remove(&epoch);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_decides() {
        let mut agreed = Agreed::default();
        assert_eq!(agreed.at(7, 2, || 'a'), 'a');
        assert_eq!(agreed.at(8, 2, || 'b'), 'b', "one worker is ahead");
        assert_eq!(agreed.at(7, 2, || 'c'), 'a');
        assert_eq!(agreed.at(8, 2, || 'c'), 'b');
        assert!(agreed.0.is_empty());
    }
}
