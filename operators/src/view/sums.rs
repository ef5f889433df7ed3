//! Sums as differences: what a group adds up to, kept without the group's rows.
//!
//! Differential dataflow adds up differences when it compacts, so a sum that stands there costs one number a group, and a change of the
//! group adds to it. Exact: 128 bits hold 2^63 rows of amounts up to 10^19 each; a decimal(14,2) has fewer than 10^14 units.

use differential_dataflow::difference::{Abelian, IsZero, Monoid, Multiply, Semigroup};
use serde::de::{Error, SeqAccess, Visitor};
use serde::ser::SerializeTuple;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// How many rows a group has, and the sums of `N` amounts of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sums<const N: usize> {
    /// The number of rows.
    pub rows: i64,
    /// The sums, in the order in which the amounts were named.
    pub of: [i128; N],
}

impl<const N: usize> IsZero for Sums<N> {
    fn is_zero(&self) -> bool {
        self.rows == 0 && self.of.iter().all(|sum| *sum == 0)
    }
}

impl<const N: usize> Semigroup for Sums<N> {
    fn plus_equals(&mut self, other: &Sums<N>) {
        self.rows += other.rows;
        self.of.iter_mut().zip(&other.of).for_each(|(sum, amount)| *sum += amount);
    }
}

impl<const N: usize> Monoid for Sums<N> {
    fn zero() -> Sums<N> {
        Sums { rows: 0, of: [0; N] }
    }
}

impl<const N: usize> Abelian for Sums<N> {
    fn negate(&mut self) {
        *self = self.multiply(&-1);
    }
}

impl<const N: usize> Multiply<isize> for Sums<N> {
    type Output = Sums<N>;

    fn multiply(self, times: &isize) -> Sums<N> {
        Sums { rows: self.rows * *times as i64, of: self.of.map(|amount| amount * *times as i128) }
    }
}

// serde has arrays of known lengths only.
impl<const N: usize> Serialize for Sums<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut tuple = serializer.serialize_tuple(N + 1)?;
        tuple.serialize_element(&self.rows)?;
        self.of.iter().try_for_each(|sum| tuple.serialize_element(sum))?;
        tuple.end()
    }
}

impl<'de, const N: usize> Deserialize<'de> for Sums<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Sums<N>, D::Error> {
        struct Parts<const N: usize>;
        impl<'de, const N: usize> Visitor<'de> for Parts<N> {
            type Value = Sums<N>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a count and {N} sums")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Sums<N>, A::Error> {
                let missing = |at| A::Error::invalid_length(at, &"a count and its sums");
                let mut sums = Sums { rows: parts.next_element()?.ok_or_else(|| missing(0))?, of: [0; N] };
                for (at, sum) in sums.of.iter_mut().enumerate() {
                    *sum = parts.next_element()?.ok_or_else(|| missing(at + 1))?;
                }
                Ok(sums)
            }
        }
        deserializer.deserialize_tuple(N + 1, Parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_come_and_go_leave_nothing() {
        let row = Sums { rows: 1, of: [10_i128.pow(20), -3] };
        let mut sums = row.multiply(&3);
        assert_eq!(sums, Sums { rows: 3, of: [3 * 10_i128.pow(20), -9] });
        sums.plus_equals(&row.multiply(&-3));
        assert!(sums.is_zero());
        // A group whose amounts add up to nothing is there all the same.
        assert!(!Sums { rows: 1, of: [0] }.is_zero());
    }

    #[test]
    fn sums_go_to_bytes_and_back() {
        let sums = Sums { rows: -4, of: [i128::MAX, 0, -1] };
        let bytes = postcard::to_allocvec(&sums).expect("plain data");
        assert_eq!(postcard::from_bytes::<Sums<3>>(&bytes).expect("just written"), sums);
    }
}
