//! A few strings in one shared allocation: what a login carries from operator to operator, into state and findings.
//!
//! A clone costs a counter and not a copy for each string. Equality and encoding are those of the tuple of strings: what else
//! lies in the allocation does not count.

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::ser::SerializeTuple;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

/// `N` strings.
#[derive(Clone)]
pub struct Texts<const N: usize> {
    all: Arc<str>,
    /// Where each ends; it begins where the one before ends.
    ends: [u32; N],
}

thread_local! {
    /// Where strings are put together before their length is known.
    static JOINED: RefCell<String> = const { RefCell::new(String::new()) };
}

/// A longer scratch buffer is given back: one giant record must not be paid for for ever.
const JOINED_BYTES_MAX: usize = 64 << 10;

impl<const N: usize> Texts<N> {
    /// These strings.
    ///
    /// # Panics
    /// When they are longer than 4 GiB together, which no record is.
    pub fn new(texts: [&str; N]) -> Texts<N> {
        let built: Result<_, std::convert::Infallible> = Texts::build(|rank, all| {
            all.push_str(texts[rank]);
            Ok(())
        });
        built.unwrap_or_else(|never| match never {})
    }

    /// `append` adds the string of each rank.
    fn build<E>(mut append: impl FnMut(usize, &mut String) -> Result<(), E>) -> Result<Texts<N>, E> {
        JOINED.with_borrow_mut(|all| {
            all.clear();
            all.shrink_to(JOINED_BYTES_MAX);
            let mut ends = [0; N];
            for (rank, end) in ends.iter_mut().enumerate() {
                append(rank, all)?;
                *end = u32::try_from(all.len()).expect("the strings of a record are shorter than 4 GiB");
            }
            Ok(Texts { all: Arc::from(all.as_str()), ends })
        })
    }

    /// The string of a rank below `N`.
    pub fn get(&self, rank: usize) -> &str {
        let start = rank.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.all[start as usize..self.ends[rank] as usize]
    }

    /// The first `M` of them, in the same allocation.
    pub fn first<const M: usize>(&self) -> Texts<M> {
        const { assert!(M <= N, "there are only N strings") };
        Texts { all: self.all.clone(), ends: std::array::from_fn(|rank| self.ends[rank]) }
    }

    /// Bytes of the strings.
    pub fn bytes(&self) -> usize {
        self.ends.last().map_or(0, |end| *end as usize)
    }

    fn joined(&self) -> &str {
        &self.all[..self.bytes()]
    }
}

impl<const N: usize> PartialEq for Texts<N> {
    fn eq(&self, other: &Texts<N>) -> bool {
        self.ends == other.ends && self.joined() == other.joined()
    }
}

impl<const N: usize> Eq for Texts<N> {}

impl<const N: usize> fmt::Debug for Texts<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries((0..N).map(|rank| self.get(rank))).finish()
    }
}

impl<const N: usize> Serialize for Texts<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut tuple = serializer.serialize_tuple(N)?;
        (0..N).try_for_each(|rank| tuple.serialize_element(self.get(rank)))?;
        tuple.end()
    }
}

impl<'de, const N: usize> Deserialize<'de> for Texts<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Texts<N>, D::Error> {
        struct Strings<const N: usize>;
        impl<'de, const N: usize> Visitor<'de> for Strings<N> {
            type Value = Texts<N>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{N} strings")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut strings: A) -> Result<Texts<N>, A::Error> {
                Texts::build(|rank, all| {
                    // Not through `String`: formats that hold the text lend it.
                    let text: Text<'_> =
                        strings.next_element()?.ok_or_else(|| A::Error::invalid_length(rank, &self))?;
                    all.push_str(&text.0);
                    Ok(())
                })
            }
        }
        deserializer.deserialize_tuple(N, Strings)
    }
}

/// Borrowed where the format can lend.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] std::borrow::Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_strings_it_was_made_of(a in ".*", b in ".*", c in ".*") {
            let texts = Texts::new([&a, &b, &c]);
            prop_assert_eq!([texts.get(0), texts.get(1), texts.get(2)], [&*a, &*b, &*c]);
            prop_assert_eq!(texts.first::<2>(), Texts::new([&a, &b]));
            prop_assert_eq!(texts.first::<2>().bytes(), a.len() + b.len());
            let bytes = postcard::to_stdvec(&texts).unwrap();
            prop_assert_eq!(&bytes, &postcard::to_stdvec(&(&a, &b, &c)).unwrap());
            prop_assert_eq!(postcard::from_bytes::<Texts<3>>(&bytes).unwrap(), texts.clone());
            let json = serde_json::to_string(&texts).unwrap();
            prop_assert_eq!(serde_json::from_str::<Texts<3>>(&json).unwrap(), texts);
        }
    }

    #[test]
    fn where_one_string_ends_counts() {
        assert_ne!(Texts::new(["a", "b"]), Texts::new(["ab", ""]));
        assert!(serde_json::from_str::<Texts<2>>(r#"["a"]"#).is_err());
    }
}
