//! The direct path: a record of primitives read straight into `T`, without apache-avro's `Value` in between.
//!
//! It takes writer schemas whose fields are primitives, nullable or not, in any order, with extra fields (of any shape,
//! skipped), fields missing that have a plain default, and Avro's numeric promotions. For everything else
//! [`Direct::compile`] is `None` and the general path is used. Both agree, which `tests::paths_agree` checks.

use super::shape::{Cursor, Shape, Shapes};
use apache_avro::Schema;
use serde::de::value::{Error, StrDeserializer};
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error as _, IntoDeserializer, MapAccess, SeqAccess, Visitor,
};
use serde::forward_to_deserialize_any;
use std::sync::OnceLock;

/// A compiled resolution of a writer's record to a reader's.
#[derive(Debug)]
pub(super) struct Direct {
    /// What to do with each of the writer's fields, in their order.
    steps: Vec<Step>,
    /// The reader's fields that the writer does not have.
    defaults: Vec<(String, Plain<'static>)>,
    /// The fields that `T` named first, and whether they come in that order: then none has to be found by its name.
    ordered: OnceLock<(&'static [&'static str], bool)>,
}

#[derive(Debug)]
enum Step {
    Skip(Shape),
    Take { name: String, read: Read },
}

/// How a field is read.
#[derive(Clone, Copy, Debug)]
enum Read {
    One(Primitive, Promotion),
    /// A union of null and one primitive; which of the two is null.
    Nullable {
        null_at: i64,
        primitive: Primitive,
        promotion: Promotion,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Primitive {
    Boolean,
    Int,
    Long,
    Float,
    Double,
    String,
    Bytes,
}

/// What the reader wants the number to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Promotion {
    None,
    ToLong,
    ToFloat,
    ToDouble,
}

/// A value as it is handed to `T`.
#[derive(Clone, Debug)]
enum Plain<'a> {
    Null,
    Boolean(bool),
    Int(i32),
    Long(i64),
    Float(f32),
    Double(f64),
    Str(&'a str),
    Bytes(&'a [u8]),
    Owned(String),
}

impl Direct {
    /// `None` when this pair of schemas needs the general path.
    pub(super) fn compile(writer: &Schema, shapes: &Shapes, reader: &Schema) -> Option<Direct> {
        let (Schema::Record(writer), Schema::Record(reader)) = (writer, reader) else { return None };
        let Shape::Record { fields, .. } = shapes.root() else { return None };
        let mut steps = Vec::new();
        for (field, known) in writer.fields.iter().zip(fields) {
            let step = match reader.fields.iter().find(|f| f.name == field.name) {
                None => Step::Skip(known.shape.clone()),
                Some(wanted) => Step::Take { name: wanted.name.clone(), read: resolve(&field.schema, &wanted.schema)? },
            };
            steps.push(step);
        }
        let mut defaults = Vec::new();
        for field in reader.fields.iter().filter(|f| writer.fields.iter().all(|w| w.name != f.name)) {
            // An alias may name a writer's field.
            if field.aliases.as_ref().is_some_and(|aliases| !aliases.is_empty()) {
                return None;
            }
            defaults.push((field.name.clone(), default(field.default.as_ref()?, &field.schema)?));
        }
        Some(Direct { steps, defaults, ordered: OnceLock::new() })
    }

    /// Decodes a body, checking every byte of it on the way.
    pub(super) fn decode<T: DeserializeOwned>(&self, shapes: &Shapes, body: &[u8]) -> Option<T> {
        let read = |may_be_ordered| {
            let cursor = Cursor::new(body);
            let mut fields = Fields { direct: self, shapes, cursor, step: 0, default: 0, read: None };
            let value = T::deserialize(Root { fields: &mut fields, may_be_ordered }).ok()?;
            fields.are_done().then_some(value)
        };
        // A type that was written by hand may take its fields by name only.
        read(true).or_else(|| read(false))
    }

    /// Whether the fields come as `T` has them, its own schema's defaults last.
    fn is_ordered(&self, fields: &'static [&'static str]) -> bool {
        let is_ordered = || {
            let taken = self.steps.iter().filter_map(|step| match step {
                Step::Skip(_) => None,
                Step::Take { name, .. } => Some(name),
            });
            taken.chain(self.defaults.iter().map(|(name, _)| name)).eq(fields)
        };
        let (known, ordered) = self.ordered.get_or_init(|| (fields, is_ordered()));
        if std::ptr::eq(*known, fields) { *ordered } else { is_ordered() }
    }
}

fn primitive(schema: &Schema) -> Option<Primitive> {
    Some(match schema {
        Schema::Boolean => Primitive::Boolean,
        Schema::Int => Primitive::Int,
        Schema::Long => Primitive::Long,
        Schema::Float => Primitive::Float,
        Schema::Double => Primitive::Double,
        Schema::String => Primitive::String,
        Schema::Bytes => Primitive::Bytes,
        _ => return None,
    })
}

/// The place of null and the primitive in a union of these two.
fn nullable(schema: &Schema) -> Option<(i64, Primitive)> {
    let Schema::Union(union) = schema else { return None };
    match union.variants() {
        [Schema::Null, other] => Some((0, primitive(other)?)),
        [other, Schema::Null] => Some((1, primitive(other)?)),
        _ => None,
    }
}

fn promote(from: Primitive, to: Primitive) -> Option<Promotion> {
    use Primitive as P;
    match (from, to) {
        _ if from == to => Some(Promotion::None),
        (P::Int, P::Long) => Some(Promotion::ToLong),
        (P::Int | P::Long, P::Float) => Some(Promotion::ToFloat),
        (P::Int | P::Long | P::Float, P::Double) => Some(Promotion::ToDouble),
        _ => None,
    }
}

fn resolve(writer: &Schema, reader: &Schema) -> Option<Read> {
    if let (Some(from), Some(to)) = (primitive(writer), primitive(reader)) {
        return Some(Read::One(from, promote(from, to)?));
    }
    // Unions with a promotion inside are left to the general path: which branch is meant is its business.
    let ((null_at, from), (_, to)) = (nullable(writer)?, nullable(reader)?);
    (from == to).then_some(Read::Nullable { null_at, primitive: from, promotion: Promotion::None })
}

fn default(value: &serde_json::Value, schema: &Schema) -> Option<Plain<'static>> {
    use serde_json::Value as V;
    match (value, schema) {
        (V::Null, Schema::Union(union)) if union.variants().first() == Some(&Schema::Null) => Some(Plain::Null),
        (V::Bool(b), Schema::Boolean) => Some(Plain::Boolean(*b)),
        (V::Number(n), Schema::Int) => Some(Plain::Int(i32::try_from(n.as_i64()?).ok()?)),
        (V::Number(n), Schema::Long) => Some(Plain::Long(n.as_i64()?)),
        (V::String(s), Schema::String) => Some(Plain::Owned(s.clone())),
        _ => None,
    }
}

impl Primitive {
    fn read<'a>(self, cursor: &mut Cursor<'a>, promotion: Promotion) -> Option<Plain<'a>> {
        let value = match self {
            Primitive::Boolean => Plain::Boolean(cursor.boolean()?),
            Primitive::Int => Plain::Int(cursor.int()?),
            Primitive::Long => Plain::Long(cursor.long()?),
            Primitive::Float => Plain::Float(cursor.float()?),
            Primitive::Double => Plain::Double(cursor.double()?),
            Primitive::String => Plain::Str(cursor.string()?),
            Primitive::Bytes => Plain::Bytes(cursor.bytes()?),
        };
        Some(match (promotion, value) {
            (Promotion::ToLong, Plain::Int(n)) => Plain::Long(n.into()),
            (Promotion::ToFloat, Plain::Int(n)) => Plain::Float(n as f32),
            (Promotion::ToFloat, Plain::Long(n)) => Plain::Float(n as f32),
            (Promotion::ToDouble, Plain::Int(n)) => Plain::Double(n.into()),
            (Promotion::ToDouble, Plain::Long(n)) => Plain::Double(n as f64),
            (Promotion::ToDouble, Plain::Float(n)) => Plain::Double(n.into()),
            (_, value) => value,
        })
    }
}

impl Read {
    fn read<'a>(self, cursor: &mut Cursor<'a>) -> Option<Plain<'a>> {
        match self {
            Read::One(primitive, promotion) => primitive.read(cursor, promotion),
            Read::Nullable { null_at, primitive, promotion } => match cursor.long()? {
                at if at == null_at => Some(Plain::Null),
                0 | 1 => primitive.read(cursor, promotion),
                _ => None,
            },
        }
    }
}

/// The fields of a body, as a map or in their order.
struct Fields<'p, 'a> {
    direct: &'p Direct,
    shapes: &'p Shapes,
    cursor: Cursor<'a>,
    step: usize,
    default: usize,
    /// Read with its key, so that a value that nobody asks for is checked too.
    read: Option<Plain<'a>>,
}

impl<'p, 'a> Fields<'p, 'a> {
    /// Reads on to the next field that is wanted, and its name: the values by default come last.
    fn advance(&mut self) -> Result<Option<(&'p str, Plain<'a>)>, Error> {
        let direct = self.direct;
        let bad = || Error::custom("the body is not what the schema says");
        while let Some(step) = direct.steps.get(self.step) {
            self.step += 1;
            match step {
                Step::Skip(shape) => self.shapes.skip(shape, &mut self.cursor).ok_or_else(bad)?,
                Step::Take { name, read } => return Ok(Some((name, read.read(&mut self.cursor).ok_or_else(bad)?))),
            }
        }
        let Some((name, value)) = direct.defaults.get(self.default) else { return Ok(None) };
        self.default += 1;
        Ok(Some((name, value.clone())))
    }

    /// Whether nothing is left that was to be read, and no byte.
    fn are_done(&mut self) -> bool {
        matches!(self.advance(), Ok(None)) && self.cursor.is_at_end()
    }
}

struct Root<'f, 'p, 'a> {
    fields: &'f mut Fields<'p, 'a>,
    /// Whether `T` may be given its fields without their names.
    may_be_ordered: bool,
}

impl<'de> Deserializer<'de> for Root<'_, '_, 'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_map(self.fields)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        if self.may_be_ordered && self.fields.direct.is_ordered(fields) {
            visitor.visit_seq(self.fields)
        } else {
            visitor.visit_map(self.fields)
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        seq tuple tuple_struct map enum identifier ignored_any
    }
}

impl<'de> SeqAccess<'de> for &mut Fields<'_, 'de> {
    type Error = Error;

    fn next_element_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<Option<V::Value>, Error> {
        let Some((_, value)) = self.advance()? else { return Ok(None) };
        seed.deserialize(value).map(Some)
    }
}

impl<'de> MapAccess<'de> for &mut Fields<'_, 'de> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let Some((name, value)) = self.advance()? else { return Ok(None) };
        self.read = Some(value);
        key(name, seed).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        seed.deserialize(self.read.take().ok_or_else(|| Error::custom("a value is asked for before its key"))?)
    }
}

fn key<'de, K: DeserializeSeed<'de>>(name: &str, seed: K) -> Result<K::Value, Error> {
    // Not as `'de`: names live in the compiled schema, not in the body.
    let name: StrDeserializer<'_, Error> = name.into_deserializer();
    seed.deserialize(name)
}

impl<'de> Deserializer<'de> for Plain<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self {
            Plain::Null => visitor.visit_unit(),
            Plain::Boolean(b) => visitor.visit_bool(b),
            Plain::Int(n) => visitor.visit_i32(n),
            Plain::Long(n) => visitor.visit_i64(n),
            Plain::Float(n) => visitor.visit_f32(n),
            Plain::Double(n) => visitor.visit_f64(n),
            Plain::Str(s) => visitor.visit_borrowed_str(s),
            Plain::Owned(s) => visitor.visit_string(s),
            Plain::Bytes(b) => visitor.visit_borrowed_bytes(b),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self {
            Plain::Null => visitor.visit_none(),
            value => visitor.visit_some(value),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self {
            Plain::Str(s) => {
                let variant: StrDeserializer<'_, Error> = s.into_deserializer();
                variant.deserialize_enum(name, variants, visitor)
            }
            other => other.deserialize_any(visitor),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        seq tuple tuple_struct map struct identifier ignored_any
    }
}
