//! A writer's schema compiled to what its bytes look like, and the walk that checks a body against it.
//!
//! The walk is what makes decoding safe: it proves that every byte is there and none is left over, that text is UTF-8,
//! and that the body does not unfold into more values than a record may hold. apache-avro alone does none of this: it
//! takes a body that ends early for nulls, and reserves memory for as many items as a block claims.

use apache_avro::Schema;
use apache_avro::schema::{DecimalSchema, RecordField, ResolvedSchema};
use std::collections::BTreeMap;

/// Values within values. Deeper schemas are of no use, and the stack is finite.
pub(crate) const DEPTH_MAX: usize = 64;

/// Values in one record, nulls and empty records included, which take no bytes: else a few bytes could unfold without end.
const VALUES_MAX: usize = 1 << 20;

/// apache-avro copies the name of a record, a field or a symbol for each value: so many bytes of it count as one value more.
const NAME_BYTES_PER_VALUE: usize = 64;

/// What the bytes of a value look like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
    Fixed(usize),
    /// What each symbol costs beside the value itself.
    Enum(Vec<usize>),
    Array(Box<Shape>),
    Map(Box<Shape>),
    Union(Vec<Shape>),
    Record {
        /// What the record's name costs.
        cost: usize,
        fields: Vec<Field>,
    },
    /// The shape of this full name.
    Named(String),
}

/// A field of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    /// What its name costs.
    cost: usize,
    pub(crate) shape: Shape,
}

/// A compiled writer's schema.
#[derive(Debug)]
pub(crate) struct Shapes {
    root: Shape,
    named: BTreeMap<String, Shape>,
}

impl Shapes {
    /// `None` when the schema nests too deeply or names what it does not define.
    pub(crate) fn compile(schema: &Schema) -> Option<Shapes> {
        let resolved = ResolvedSchema::try_from(schema).ok()?;
        let mut named = BTreeMap::new();
        for (name, schema) in resolved.get_names() {
            named.insert(name.fullname(None), shape(schema, &name.namespace, DEPTH_MAX)?);
        }
        let root = shape(schema, &None, DEPTH_MAX)?;
        Some(Shapes { root, named })
    }

    /// The shape of the whole.
    pub(crate) fn root(&self) -> &Shape {
        &self.root
    }

    /// The shape itself, where `shape` names one.
    pub(crate) fn named<'a>(&'a self, shape: &'a Shape) -> Option<&'a Shape> {
        match shape {
            Shape::Named(name) => self.named.get(name),
            shape => Some(shape),
        }
    }

    /// Whether `body` is exactly one value.
    pub(crate) fn fits(&self, body: &[u8]) -> bool {
        let mut cursor = Cursor::new(body);
        self.skip(&self.root, &mut cursor).is_some() && cursor.is_at_end()
    }

    /// Checks and passes over one value.
    pub(crate) fn skip(&self, shape: &Shape, cursor: &mut Cursor<'_>) -> Option<()> {
        self.walk(shape, cursor, DEPTH_MAX)
    }

    fn walk(&self, shape: &Shape, cursor: &mut Cursor<'_>, depth: usize) -> Option<()> {
        cursor.charge(1)?;
        let deeper = depth.checked_sub(1)?;
        match shape {
            Shape::Null => Some(()),
            Shape::Boolean => cursor.boolean().map(drop),
            Shape::Int => cursor.int().map(drop),
            Shape::Long => cursor.long().map(drop),
            Shape::Float => cursor.take(4).map(drop),
            Shape::Double => cursor.take(8).map(drop),
            Shape::Bytes => cursor.bytes().map(drop),
            Shape::String => cursor.string().map(drop),
            Shape::Fixed(length) => cursor.take(*length).map(drop),
            Shape::Enum(symbols) => {
                let cost = symbols.get(usize::try_from(cursor.int()?).ok()?)?;
                cursor.charge(*cost)
            }
            Shape::Union(variants) => {
                let variant = variants.get(usize::try_from(cursor.long()?).ok()?)?;
                self.walk(variant, cursor, deeper)
            }
            Shape::Record { cost, fields } => {
                cursor.charge(*cost)?;
                fields.iter().try_for_each(|field| {
                    cursor.charge(field.cost)?;
                    self.walk(&field.shape, cursor, deeper)
                })
            }
            Shape::Named(name) => {
                cursor.charge(cost(name))?;
                self.walk(self.named.get(name)?, cursor, deeper)
            }
            Shape::Array(items) => self.blocks(cursor, |cursor| self.walk(items, cursor, deeper)),
            Shape::Map(values) => self.blocks(cursor, |cursor| {
                cursor.string()?;
                self.walk(values, cursor, deeper)
            }),
        }
    }

    fn blocks<'a>(&self, cursor: &mut Cursor<'a>, mut item: impl FnMut(&mut Cursor<'a>) -> Option<()>) -> Option<()> {
        loop {
            let count = match cursor.long()? {
                0 => return Some(()),
                count if count > 0 => count,
                negated => {
                    // The block's size in bytes, for readers that skip it.
                    cursor.long()?;
                    negated.checked_neg()?
                }
            };
            let count = usize::try_from(count).ok().filter(|count| *count <= cursor.values_left)?;
            for _ in 0..count {
                item(cursor)?;
            }
        }
    }
}

/// What copies of a name cost beside the value that it belongs to.
fn cost(name: &str) -> usize {
    name.len() / NAME_BYTES_PER_VALUE
}

fn shape(schema: &Schema, namespace: &Option<String>, depth: usize) -> Option<Shape> {
    let deeper = depth.checked_sub(1)?;
    Some(match schema {
        Schema::Null => Shape::Null,
        Schema::Boolean => Shape::Boolean,
        Schema::Int | Schema::Date | Schema::TimeMillis => Shape::Int,
        Schema::Long
        | Schema::TimeMicros
        | Schema::TimestampMillis
        | Schema::TimestampMicros
        | Schema::TimestampNanos
        | Schema::LocalTimestampMillis
        | Schema::LocalTimestampMicros
        | Schema::LocalTimestampNanos => Shape::Long,
        Schema::Float => Shape::Float,
        Schema::Double => Shape::Double,
        Schema::Bytes | Schema::BigDecimal | Schema::Uuid => Shape::Bytes,
        Schema::String => Shape::String,
        Schema::Duration => Shape::Fixed(12),
        Schema::Fixed(fixed) => Shape::Fixed(fixed.size),
        Schema::Enum(symbols) => Shape::Enum(symbols.symbols.iter().map(|symbol| cost(symbol)).collect()),
        Schema::Decimal(DecimalSchema { inner, .. }) => shape(inner, namespace, deeper)?,
        Schema::Array(array) => Shape::Array(Box::new(shape(&array.items, namespace, deeper)?)),
        Schema::Map(map) => Shape::Map(Box::new(shape(&map.types, namespace, deeper)?)),
        Schema::Union(union) => Shape::Union(
            union.variants().iter().map(|variant| shape(variant, namespace, deeper)).collect::<Option<_>>()?,
        ),
        Schema::Record(record) => {
            let name = record.name.fully_qualified_name(namespace);
            let field = |field: &RecordField| {
                Some(Field { cost: cost(&field.name), shape: shape(&field.schema, &name.namespace, deeper)? })
            };
            let fields = record.fields.iter().map(field).collect::<Option<_>>()?;
            Shape::Record { cost: cost(&name.fullname(None)), fields }
        }
        Schema::Ref { name } => Shape::Named(name.fully_qualified_name(namespace).fullname(None)),
    })
}

/// Reads Avro's primitives. Every method is `None` when the bytes do not hold what it reads.
#[derive(Clone, Debug)]
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
    values_left: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(body: &'a [u8]) -> Cursor<'a> {
        Cursor { rest: body, values_left: VALUES_MAX }
    }

    /// Counts what a value unfolds into.
    fn charge(&mut self, values: usize) -> Option<()> {
        self.values_left = self.values_left.checked_sub(values)?;
        Some(())
    }

    pub(crate) fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }

    pub(crate) fn boolean(&mut self) -> Option<bool> {
        match self.take(1)? {
            [0] => Some(false),
            [1] => Some(true),
            _ => None,
        }
    }

    pub(crate) fn int(&mut self) -> Option<i32> {
        i32::try_from(self.long()?).ok()
    }

    pub(crate) fn long(&mut self) -> Option<i64> {
        let mut zigzag = 0u64;
        for (at, byte) in self.rest.iter().enumerate() {
            let low = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit.
            if at == 9 && low > 1 {
                return None;
            }
            zigzag |= low << (7 * at);
            if byte & 0x80 == 0 {
                self.rest = &self.rest[at + 1..];
                return Some((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64));
            }
            if at == 9 {
                return None;
            }
        }
        None
    }

    pub(crate) fn float(&mut self) -> Option<f32> {
        Some(f32::from_le_bytes(*self.take(4)?.first_chunk()?))
    }

    pub(crate) fn double(&mut self) -> Option<f64> {
        Some(f64::from_le_bytes(*self.take(8)?.first_chunk()?))
    }

    pub(crate) fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.long()?).ok()?;
        self.take(length)
    }

    pub(crate) fn string(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(schema: &str, body: &[u8], expected: bool) {
        let schema = Schema::parse_str(schema).unwrap();
        assert_eq!(Shapes::compile(&schema).unwrap().fits(body), expected, "{body:?}");
    }

    #[test]
    fn every_byte_is_there_and_none_is_left() {
        check(r#""boolean""#, &[], false);
        check(r#""boolean""#, &[1], true);
        check(r#""boolean""#, &[2], false);
        check(r#""boolean""#, &[1, 1], false);
        check(r#""string""#, &[4, b'a'], false);
        check(r#""string""#, &[4, b'a', b'b'], true);
        check(r#""string""#, &[2, 0xff], false);
        check(r#""string""#, &[1], false);
        check(r#""int""#, &[0xff, 0xff, 0xff, 0xff, 0x0f], true);
        check(r#""int""#, &[0x80, 0x80, 0x80, 0x80, 0x10], false);
        check(r#""long""#, &[0xff; 9], false);
        check(r#""long""#, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], true);
        check(r#""long""#, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x03], false);
        check(r#"["null","string"]"#, &[], false);
        check(r#"["null","string"]"#, &[0], true);
        check(r#"["null","string"]"#, &[4], false);
        check(r#"{"type":"array","items":"int"}"#, &[4, 2, 2, 0], true);
        check(r#"{"type":"array","items":"int"}"#, &[3, 4, 2, 2, 0], true);
        check(r#"{"type":"map","values":"int"}"#, &[2, 2, b'k', 2, 0], true);
        check(r#"{"type":"enum","name":"e","symbols":["A","B"]}"#, &[4], false);
        check(r#"{"type":"fixed","name":"f","size":3}"#, &[1, 2, 3], true);
    }

    #[test]
    fn a_few_bytes_do_not_unfold_without_end() {
        // An array of 2^40 nulls, and records within records that take no bytes.
        check(r#"{"type":"array","items":"null"}"#, &[0x80, 0x80, 0x80, 0x80, 0x80, 0x40, 0], false);
        let mut schema = r#""null""#.to_owned();
        for level in 0..40 {
            let first = format!(r#"{{"name":"a","type":{schema}}}"#);
            let second = if level == 0 {
                r#"{"name":"b","type":"null"}"#.into()
            } else {
                format!(r#"{{"name":"b","type":"R{}"}}"#, level - 1)
            };
            schema = format!(r#"{{"type":"record","name":"R{level}","fields":[{first},{second}]}}"#);
        }
        check(&schema, &[], false);
        // A quarter of a million values are fine, but not when each brings a copy of a long name.
        let items = 1 << 18;
        let array = |of: &str| format!(r#"{{"type":"array","items":{of}}}"#);
        let count = [0x80, 0x80, 0x20];
        for (length, expected) in [(20, true), (200, false), (100_000, false)] {
            let name = "n".repeat(length);
            let field =
                array(&format!(r#"{{"type":"record","name":"R","fields":[{{"name":"{name}","type":"null"}}]}}"#));
            check(&field, &[&count[..], &[0]].concat(), expected);
            let record = array(&format!(r#"{{"type":"record","name":"{name}","fields":[]}}"#));
            check(&record, &[&count[..], &[0]].concat(), expected);
            let symbol = array(&format!(r#"{{"type":"enum","name":"E","symbols":["{name}"]}}"#));
            check(&symbol, &[&count[..], &vec![0; items], &[0]].concat(), expected);
        }
        // A list within itself, deeper than anything useful.
        let list = r#"{"type":"record","name":"L","fields":[{"name":"next","type":["null","L"]}]}"#;
        check(list, &[2, 2, 2, 0], true);
        check(list, &[[2u8; 1000].as_slice(), &[0]].concat(), false);
    }
}
