//! Nested ranges flattened into disjoint ones, so that the innermost range of a point is one binary search.
//!
//! Invariant: any two ranges that come in are nested or disjoint (prefixes are), and no two are equal.

/// A map from points to the index of the innermost range around them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ranges<A> {
    /// Where each piece starts; it ends before the next one.
    starts: Vec<A>,
    /// What covers each piece; [`NOTHING`] where no range does.
    values: Vec<u32>,
}

/// Marks a piece that no range covers.
const NOTHING: u32 = u32::MAX;

impl<A: Copy + Ord> Ranges<A> {
    /// Flattens `(first, last, value)` ranges. `after` is the next point, `None` at the end of the space.
    pub(super) fn flatten(mut ranges: Vec<(A, A, u32)>, after: impl Fn(A) -> Option<A>) -> Ranges<A> {
        ranges.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
        let mut flat = Ranges { starts: Vec::with_capacity(ranges.len()), values: Vec::with_capacity(ranges.len()) };
        let mut around: Vec<(A, u32)> = Vec::new();
        for (first, last, value) in ranges {
            flat.leave(&mut around, Some(first), &after);
            flat.piece(first, value);
            around.push((last, value));
        }
        flat.leave(&mut around, None, &after);
        flat
    }

    /// The value of the innermost range around `point`.
    pub(super) fn get(&self, point: A) -> Option<u32> {
        let piece = self.starts.partition_point(|start| *start <= point).checked_sub(1)?;
        Some(self.values[piece]).filter(|value| *value != NOTHING)
    }

    /// Leaves every range that ends before `next` (`None`: all), going back to the one around it.
    fn leave(&mut self, around: &mut Vec<(A, u32)>, next: Option<A>, after: &impl Fn(A) -> Option<A>) {
        while let Some(&(last, _)) = around.last().filter(|(last, _)| next.is_none_or(|next| *last < next)) {
            around.pop();
            if let Some(start) = after(last) {
                self.piece(start, around.last().map_or(NOTHING, |(_, value)| *value));
            }
        }
    }

    fn piece(&mut self, start: A, value: u32) {
        // Ranges that end or begin at one point leave empty pieces there: the last word holds.
        if self.starts.last() == Some(&start) {
            self.starts.pop();
            self.values.pop();
        }
        if self.values.last() != Some(&value) {
            self.starts.push(start);
            self.values.push(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn innermost_wins_and_gaps_stay_gaps() {
        let ranges = vec![(0u8, 255, 0), (16, 31, 1), (16, 17, 2), (30, 31, 3), (32, 32, 4), (255, 255, 5)];
        let flat = Ranges::flatten(ranges, |a| a.checked_add(1));
        for (point, expected) in [(0, 0), (15, 0), (16, 2), (17, 2), (18, 1), (29, 1), (30, 3), (31, 3)] {
            assert_eq!(flat.get(point), Some(expected), "{point}");
        }
        assert_eq!([flat.get(32), flat.get(33), flat.get(254), flat.get(255)], [Some(4), Some(0), Some(0), Some(5)]);
        let gap = Ranges::flatten(vec![(4u8, 7, 9)], |a| a.checked_add(1));
        assert_eq!([gap.get(3), gap.get(4), gap.get(7), gap.get(8)], [None, Some(9), Some(9), None]);
        assert_eq!(Ranges::flatten(vec![], |a: u8| a.checked_add(1)).get(0), None);
    }
}
