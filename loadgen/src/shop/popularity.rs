//! Zipf's law: the n-th is chosen a n-th as often as the first.

use crate::dice::Dice;

/// Weight of the first.
const SCALE: u64 = 1 << 40;

/// How often each of a number is chosen.
#[derive(Clone, Debug)]
pub(super) struct Popularity {
    /// Sums of the weights up to each rank. Integers: sums of doubles would do, but their order would matter.
    sums: Vec<u64>,
}

impl Popularity {
    pub(super) fn new(members: u64) -> Popularity {
        let mut sum = 0;
        let sums = (1..=members).map(|rank| {
            sum += SCALE / rank;
            sum
        });
        Popularity { sums: sums.collect() }
    }

    /// A rank, from 0.
    pub(super) fn draw(&self, dice: &mut Dice) -> u64 {
        let all = self.sums.last().copied().unwrap_or(1);
        let at = dice.below(all);
        self.sums.partition_point(|sum| *sum <= at) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_drawn_half_as_often() {
        let (popularity, mut dice) = (Popularity::new(100), Dice::of(&[7]));
        let mut drawn = [0u64; 100];
        (0..200_000).for_each(|_| drawn[popularity.draw(&mut dice) as usize] += 1);
        for rank in [2, 3, 10] {
            let share = drawn[rank - 1] as f64 * rank as f64 / drawn[0] as f64;
            assert!((0.93..1.07).contains(&share), "rank {rank}: {share}");
        }
        assert!(drawn.iter().all(|count| *count > 0));
    }
}
