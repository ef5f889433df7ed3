//! A view: a named collection of typed rows, and the operations that keep nothing.

use super::row::{TableRow, places_in};
use dataflow_core::{Epoch, Result, Row, TableSchema};
use differential_dataflow::operators::ThresholdTotal;
use differential_dataflow::{ExchangeData, Hashable, VecCollection};
use std::rc::Rc;

/// A named collection of rows that changes from epoch to epoch. Cheap to clone: a clone is another reader.
///
/// ```
/// use dataflow_operators::table_row;
/// use dataflow_operators::view::{Text, View};
///
/// table_row! {
///     /// How often a word stands in the input.
///     pub struct WordCount("word_counts", key: word) {
///         /// The word.
///         pub word: Text,
///         /// How often.
///         pub count: i64,
///     }
/// }
///
/// fn word_counts(words: View<'_, Text>) -> View<'_, WordCount> {
///     words
///         .group(Text::clone, |_| [], |word, sums| WordCount { word: word.clone(), count: sums.rows })
///         .named("word_counts")
/// }
/// ```
///
/// A view of what is no table row can not go to a table, and the compiler says so:
///
/// ```compile_fail,E0277
/// fn to_sink(words: dataflow_operators::view::View<'_, String>) {
///     words.changes(); // `String` is not a row of a table
/// }
/// ```
#[derive(Clone)]
pub struct View<'s, R: Clone + 'static> {
    pub(super) name: Rc<str>,
    pub(super) rows: VecCollection<'s, Epoch, R>,
    pub(super) is_history: bool,
}

impl<'s, R: Clone + 'static> View<'s, R> {
    /// The view `name` over a collection.
    pub fn new(name: &str, rows: VecCollection<'s, Epoch, R>) -> View<'s, R> {
        View { name: name.into(), rows, is_history: false }
    }

    /// The rows of a table. Its columns are matched by name, so the table may have more of them, and in any order.
    ///
    /// # Errors
    /// When the table lacks a column of `R`, or has it with another type.
    pub fn of_table(schema: &TableSchema, rows: VecCollection<'s, Epoch, Row>) -> Result<View<'s, R>>
    where
        R: TableRow,
    {
        let places = places_in::<R>(schema)?;
        let is_as_it_stands = places.iter().copied().eq(0..schema.columns.len());
        let typed = rows.map(move |row| {
            let row = if is_as_it_stands { row } else { places.iter().map(|at| row.get(*at).clone()).collect() };
            R::from_row(&row).expect("a table holds rows of its schema, which was compared when the job was built")
        });
        Ok(View::new(R::TABLE, typed))
    }

    /// The same rows under another name: operators after this carry it.
    pub fn named(self, name: &str) -> View<'s, R> {
        View { name: name.into(), ..self }
    }

    /// Whether some of its rows do not come again after a restart: whoever keeps them has all there is.
    pub fn is_history(&self) -> bool {
        self.is_history
    }

    /// The collection itself, for operators that are not here.
    pub fn into_collection(self) -> VecCollection<'s, Epoch, R> {
        self.rows
    }

    /// Each row as `logic` makes it.
    pub fn map<S: Clone + 'static>(&self, logic: impl Fn(R) -> S + 'static) -> View<'s, S> {
        self.with(self.rows.clone().map(logic))
    }

    /// None or more rows for each row.
    pub fn flat_map<I>(&self, logic: impl Fn(R) -> I + 'static) -> View<'s, I::Item>
    where
        I: IntoIterator<Item: Clone + 'static>,
    {
        self.with(self.rows.clone().flat_map(logic))
    }

    /// The rows that `logic` keeps.
    pub fn filter(&self, logic: impl Fn(&R) -> bool + 'static) -> View<'s, R> {
        self.with(self.rows.clone().filter(logic))
    }

    /// The rows of both, with their multiplicities.
    pub fn concat(&self, other: &View<'s, R>) -> View<'s, R> {
        self.with(self.rows.clone().concat(other.rows.clone()))
    }

    /// Each row once, however often it stands here.
    pub fn distinct(&self) -> View<'s, R>
    where
        R: ExchangeData + Hashable,
    {
        self.with(self.rows.clone().distinct_total())
    }

    /// Another collection under this view's name.
    pub(super) fn with<S: Clone + 'static>(&self, rows: VecCollection<'s, Epoch, S>) -> View<'s, S> {
        View { name: self.name.clone(), rows, is_history: self.is_history }
    }

    /// The name of an operator of this view.
    pub(super) fn operator(&self, does: &str) -> String {
        format!("{}: {does}", self.name)
    }
}
