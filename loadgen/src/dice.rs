//! Random numbers that are the same on every machine and in every version: SplitMix64 over hashed coordinates.
//!
//! Own code and not a crate's, because recorded offsets must give the same bytes after an upgrade. Only integers and
//! multiplications of doubles are used: the results of `powf` or `ln` differ between platforms.

/// A stream of random numbers.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl Dice {
    /// The stream that belongs to these coordinates (a seed, a purpose, a user, a block, ...).
    pub(crate) fn of(coordinates: &[u64]) -> Dice {
        let fold = |state: u64, c: &u64| mix(state.wrapping_add(0x9E37_79B9_7F4A_7C15) ^ mix(*c));
        Dice(coordinates.iter().fold(0, fold))
    }

    /// 64 random bits.
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }

    /// A number below `n`, which is not 0. The bias of the multiplication method is below n / 2^64.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        debug_assert!(n > 0, "there is no number below 0");
        ((u128::from(self.bits()) * u128::from(n)) >> 64) as u64
    }

    /// From `low` to `high`, both included.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// In [0, 1).
    pub(crate) fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// True with probability `p`.
    pub(crate) fn chance(&mut self, p: f64) -> bool {
        self.unit() < p
    }

    /// One of them.
    pub(crate) fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values of the first version: a change here changes every recorded stream.
    #[test]
    fn pinned() {
        let mut dice = Dice::of(&[1, 2]);
        let first = (dice.bits(), dice.below(1000), dice.chance(0.5));
        let mut again = Dice::of(&[1, 2]);
        assert_eq!(first, (again.bits(), again.below(1000), again.chance(0.5)));
        assert_ne!(Dice::of(&[2, 1]).bits(), Dice::of(&[1, 2]).bits());
        assert_eq!(Dice::of(&[]).bits(), 0xE220_A839_7B1D_CDAF, "SplitMix64's published first value for seed 0");
        let mean = (0..10_000).map(|_| dice.unit()).sum::<f64>() / 10_000.0;
        assert!((0.48..0.52).contains(&mean), "{mean}");
    }
}
