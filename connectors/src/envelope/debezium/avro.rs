//! Records in Avro with Confluent framing: the writer's schema by its id, compiled to a walk that reads what is wanted and checks the rest.
//!
//! The walk reads a body from its first byte to its last, as [`Shapes`] does for all other Avro here, and borrows what it reads. What
//! Debezium says about a type (`connect.name`, a decimal's scale) stands in the schema's text, from which apache-avro drops it; so the
//! text is read beside the compiled shapes.

use crate::decode::UNDECODABLE;
use crate::decode::avro::parse;
use crate::decode::avro::shape::{Cursor, Field, Shape, Shapes};
use crate::decode::registry::Schemas;
use crate::decode::writers::{Writer, Writers, framed};
use crate::envelope::cell::{Cell, Meaning, Raw};
use crate::envelope::layout::{Fields, Form, Layout, Want};
use crate::envelope::{ChangeEvent, Found, Ignored, NOT_A_CHANGE, decoded, ignored};
use dataflow_core::{Decode, Decoded, Epoch, Record, Result, SchemaBinding, TableSchema, Waker};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Decodes the changes of one table from Avro. One per worker and source; all of a source share one [`Schemas`].
pub struct DebeziumAvroDecoder {
    layout: Layout,
    writers: Writers<Plan>,
}

impl DebeziumAvroDecoder {
    /// A decoder of the declared columns of a table. `wake` is called when an answer of the registry has come.
    ///
    /// # Errors
    /// When the key of `table` names columns that it does not have, or two columns have one name.
    pub fn new(table: TableSchema, schemas: Arc<Schemas>, wake: Waker) -> Result<DebeziumAvroDecoder> {
        Ok(DebeziumAvroDecoder { layout: Layout::new(table)?, writers: Writers::new(schemas, wake) })
    }

    fn event(&self, plan: &Plan, body: &[u8]) -> Found<ChangeEvent> {
        let mut cells = self.layout.cells();
        plan.read(body, &mut cells).ok_or(UNDECODABLE)?;
        self.layout.event(plan.form.ok_or(NOT_A_CHANGE)?, &cells)
    }
}

impl Decode<ChangeEvent> for DebeziumAvroDecoder {
    fn decode(&mut self, record: &Record) -> Decoded<ChangeEvent> {
        if record.value.is_none() {
            return decoded(ignored(Ignored::Tombstone));
        }
        let Some((id, body)) = framed(record) else { return Decoded::Dead(UNDECODABLE) };
        match self.writers.get(id, |text| Plan::compile(text, &self.layout)) {
            Writer::Asked => Decoded::Unresolved,
            Writer::Unreadable => Decoded::Dead(UNDECODABLE),
            Writer::Known(plan) => decoded(self.event(&plan, body)),
        }
    }

    fn resolving(&self) -> Result<()> {
        self.writers.resolving()
    }

    fn resolved(&mut self) -> Vec<SchemaBinding> {
        self.writers.resolved()
    }

    fn foresee(&mut self, record: &Record) {
        self.writers.foresee(record);
    }

    fn begin(&mut self, epoch: Epoch, bound: Option<&[SchemaBinding]>) -> Result<()> {
        self.writers.begin(epoch, bound)
    }

    fn bind(&mut self, schemas: &[SchemaBinding]) -> Result<()> {
        self.writers.bind(schemas)
    }
}

/// What to do with the bytes of one writer's records.
struct Plan {
    /// None: no change event.
    form: Option<Form>,
    root: Step,
    shapes: Shapes,
}

/// What to do with the bytes of a value.
enum Step {
    /// Pass over them.
    Skip(Shape),
    /// Put the value into a cell.
    Take { at: usize, leaf: Leaf, meaning: Meaning },
    /// Pass over a value that no column can hold, and say so in a cell.
    Note { at: usize, shape: Shape },
    /// The fields in their order; whether there is such a record is noted in a cell.
    Record { present: Option<usize>, fields: Vec<Step> },
    /// One of these, by its number.
    Union(Vec<Step>),
}

/// How a value is read.
#[derive(Clone, Debug)]
enum Leaf {
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
    Fixed(usize),
    Enum(Vec<Box<str>>),
    /// A record of a scale and a number.
    Scaled,
}

impl Plan {
    /// `None` when the text is no schema of a record.
    fn compile(text: &str, layout: &Layout) -> Option<Plan> {
        let shapes = Shapes::compile(&parse(text)?)?;
        let json: Value = serde_json::from_str(text).ok()?;
        let mut texts = Texts { shapes: &shapes, named: BTreeMap::new() };
        texts.collect(&json, "");
        let fields = json["fields"].as_array()?;
        let field = |name: &str| fields.iter().find(|field| field["name"] == name);
        let source_is_record = field("source").is_some_and(|source| source["type"]["type"] == "record");
        let form = Form::of(|name| field(name).is_some(), source_is_record, fields.len());
        let root = match form.and_then(|form| layout.wanted(form)) {
            Some(wanted) => texts.record(&json, "", shapes.root(), None, wanted)?,
            None => Step::Skip(shapes.root().clone()),
        };
        Some(Plan { form, root, shapes })
    }

    /// Reads a body, all of it, into the cells.
    fn read<'a>(&self, body: &'a [u8], cells: &mut [Cell<'a>]) -> Option<()> {
        let mut cursor = Cursor::new(body);
        self.step(&self.root, &mut cursor, cells)?;
        cursor.is_at_end().then_some(())
    }

    /// Steps lie within each other as deep as what is wanted does, which is not deep.
    fn step<'a>(&self, step: &Step, cursor: &mut Cursor<'a>, cells: &mut [Cell<'a>]) -> Option<()> {
        match step {
            Step::Skip(shape) => self.shapes.skip(shape, cursor),
            Step::Take { at, leaf, meaning } => {
                cells[*at] = Cell { raw: leaf.read(cursor)?, meaning: *meaning };
                Some(())
            }
            Step::Note { at, shape } => {
                cells[*at].raw = Raw::Other;
                self.shapes.skip(shape, cursor)
            }
            Step::Record { present, fields } => {
                if let Some(at) = present {
                    cells[*at].raw = Raw::Boolean(true);
                }
                fields.iter().try_for_each(|field| self.step(field, cursor, cells))
            }
            Step::Union(variants) => {
                let variant = variants.get(usize::try_from(cursor.long()?).ok()?)?;
                self.step(variant, cursor, cells)
            }
        }
    }
}

impl Leaf {
    fn read<'a>(&self, cursor: &mut Cursor<'a>) -> Option<Raw<'a>> {
        Some(match self {
            Leaf::Boolean => Raw::Boolean(cursor.boolean()?),
            Leaf::Int => Raw::Integer(cursor.int()?.into()),
            Leaf::Long => Raw::Integer(cursor.long()?),
            Leaf::Float => Raw::Float(cursor.float()?),
            Leaf::Double => Raw::Double(cursor.double()?),
            Leaf::Bytes => Raw::Bytes(cursor.bytes()?.into()),
            Leaf::String => Raw::Text(cursor.string()?.into()),
            Leaf::Fixed(length) => Raw::Bytes(cursor.take(*length)?.into()),
            Leaf::Enum(symbols) => {
                let symbol = symbols.get(usize::try_from(cursor.int()?).ok()?)?;
                Raw::Text(symbol.to_string().into())
            }
            Leaf::Scaled => Raw::Scaled { scale: cursor.int()?, unscaled: cursor.bytes()?.into() },
        })
    }
}

/// A schema's text beside its shapes.
struct Texts<'a> {
    shapes: &'a Shapes,
    /// The texts of named types with the namespace in which each stands.
    named: BTreeMap<FullName<'a>, (&'a Value, &'a str)>,
}

impl<'a> Texts<'a> {
    /// Notes all named types. The nesting of a text is bounded by its parser.
    fn collect(&mut self, json: &'a Value, namespace: &'a str) {
        match json {
            Value::Array(variants) => variants.iter().for_each(|variant| self.collect(variant, namespace)),
            Value::Object(members) => {
                let inner = inner_namespace(json, namespace);
                if let (Some("record" | "enum" | "fixed"), Some(name)) = (json["type"].as_str(), json["name"].as_str())
                {
                    self.named.insert(full_name(name, inner), (json, namespace));
                }
                for member in ["type", "items", "values"] {
                    if let Some(json) = members.get(member) {
                        self.collect(json, inner);
                    }
                }
                for field in json["fields"].as_array().into_iter().flatten() {
                    self.collect(&field["type"], inner);
                }
            }
            _ => {}
        }
    }

    /// The definition that a text stands for, and the namespace around it.
    fn definition(&self, mut json: &'a Value, namespace: &'a str) -> Option<(&'a Value, &'a str)> {
        while let Some(inner @ (Value::Object(_) | Value::Array(_))) = json.get("type") {
            json = inner;
        }
        match json.as_str().filter(|name| !is_primitive(name)) {
            Some(name) => self.named.get(&full_name(name, namespace)).copied(),
            None => Some((json, namespace)),
        }
    }

    /// The step for a value of which this is wanted.
    fn step(&self, json: &'a Value, namespace: &'a str, shape: &Shape, want: &Want) -> Option<Step> {
        let shape = self.shapes.named(shape)?;
        let (json, namespace) = self.definition(json, namespace)?;
        if let (Shape::Union(shapes), Value::Array(variants)) = (shape, json) {
            let variants = variants.iter().zip(shapes);
            return variants
                .map(|(json, shape)| self.step(json, namespace, shape, want))
                .collect::<Option<_>>()
                .map(Step::Union);
        }
        Some(match (want, shape) {
            (_, Shape::Null) => Step::Skip(Shape::Null),
            (Want::Record { present, fields }, Shape::Record { .. }) => {
                return self.record(json, namespace, shape, *present, fields);
            }
            (Want::Record { .. }, shape) => Step::Skip(shape.clone()),
            (Want::Cell(at), shape) => match leaf(json, shape) {
                Some(leaf) => Step::Take { at: *at, leaf, meaning: meaning(json) },
                None => Step::Note { at: *at, shape: shape.clone() },
            },
        })
    }

    fn record(
        &self,
        json: &'a Value,
        namespace: &'a str,
        shape: &Shape,
        present: Option<usize>,
        wanted: &Fields,
    ) -> Option<Step> {
        let (Shape::Record { fields: shapes, .. }, texts) = (shape, json["fields"].as_array()?) else { return None };
        if shapes.len() != texts.len() {
            return None;
        }
        let inner = inner_namespace(json, namespace);
        let step = |(text, Field { shape, .. }): (&'a Value, &Field)| match wanted.get(text["name"].as_str()?) {
            Some(want) => self.step(&text["type"], inner, shape, want),
            None => Some(Step::Skip(shape.clone())),
        };
        let fields = texts.iter().zip(shapes).map(step).collect::<Option<_>>()?;
        Some(Step::Record { present, fields })
    }
}

/// How a value of this shape is read into a cell; `None` when it can not be.
fn leaf(json: &Value, shape: &Shape) -> Option<Leaf> {
    Some(match shape {
        Shape::Boolean => Leaf::Boolean,
        Shape::Int => Leaf::Int,
        Shape::Long => Leaf::Long,
        Shape::Float => Leaf::Float,
        Shape::Double => Leaf::Double,
        // Text with a logical type has the shape of bytes.
        Shape::Bytes if json == "string" || json["type"] == "string" => Leaf::String,
        Shape::Bytes => Leaf::Bytes,
        Shape::String => Leaf::String,
        Shape::Fixed(length) => Leaf::Fixed(*length),
        Shape::Enum(_) => Leaf::Enum(
            json["symbols"].as_array()?.iter().map(|symbol| symbol.as_str().map(Into::into)).collect::<Option<_>>()?,
        ),
        Shape::Record { fields, .. } if json["connect.name"] == "io.debezium.data.VariableScaleDecimal" => {
            match fields.as_slice() {
                [Field { shape: Shape::Int, .. }, Field { shape: Shape::Bytes, .. }] => Leaf::Scaled,
                _ => return None,
            }
        }
        _ => return None,
    })
}

/// What the text says about a type beyond its shape. `connect.name` comes first: without `time.precision.mode = connect` it is all there is.
fn meaning(json: &Value) -> Meaning {
    let scale = json["scale"].as_i64().and_then(|scale| i32::try_from(scale).ok());
    let named = json["connect.name"].as_str().and_then(|name| Meaning::of_name(name, scale));
    let logical = || json["logicalType"].as_str().and_then(|name| Meaning::of_logical_type(name, scale));
    named.or_else(logical).unwrap_or(Meaning::Plain)
}

fn is_primitive(name: &str) -> bool {
    matches!(name, "null" | "boolean" | "int" | "long" | "float" | "double" | "bytes" | "string")
}

/// A namespace and a name in it: parts of the schema's text, because copies of a long namespace for each of many names would unfold.
type FullName<'a> = (&'a str, &'a str);

fn full_name<'a>(name: &'a str, namespace: &'a str) -> FullName<'a> {
    name.rsplit_once('.').unwrap_or((namespace, name))
}

/// The namespace within a named type (Avro specification, "Names").
fn inner_namespace<'a>(json: &'a Value, namespace: &'a str) -> &'a str {
    let of_name = json["name"].as_str().and_then(|name| name.rsplit_once('.')).map(|(namespace, _)| namespace);
    of_name.or(json["namespace"].as_str()).unwrap_or(namespace)
}
