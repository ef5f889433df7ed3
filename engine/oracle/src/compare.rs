//! Comparison of rows with a readable account of what differs.
//!
//! 1 and 1.0 are equal, "1" and 1 are not; the order of keys does not matter. Rows with an `id`, or with a partition
//! and an offset, are matched by it and shown as changed fields.

use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// Differences that are shown; the rest is counted.
const SHOWN: usize = 20;

/// A row as text: keys sorted, whole floats as integers, without the top-level fields `ignore`.
pub fn canonical(row: &Value, ignore: &[&str]) -> String {
    normal(row, ignore).to_string()
}

/// The same as a value.
pub(crate) fn normal(row: &Value, ignore: &[&str]) -> Value {
    let mut row = sorted(row);
    if let Value::Object(fields) = &mut row {
        fields.retain(|name, _| !ignore.contains(&name.as_str()));
    }
    row
}

/// Whether two multisets of rows are equal, apart from the top-level fields `ignore`.
///
/// # Errors
/// With what differs.
pub fn compare(expected: &[Value], actual: &[Value], ignore: &[&str]) -> Result<(), String> {
    let mut counts: BTreeMap<String, i64> = BTreeMap::new();
    for row in expected {
        *counts.entry(canonical(row, ignore)).or_default() += 1;
    }
    for row in actual {
        *counts.entry(canonical(row, ignore)).or_default() -= 1;
    }
    counts.retain(|_, n| *n != 0);
    if counts.is_empty() {
        return Ok(());
    }
    let missing: i64 = counts.values().filter(|n| **n > 0).sum();
    let unexpected: i64 = -counts.values().filter(|n| **n < 0).sum::<i64>();
    let mut lines = vec![format!(
        "expected {} rows, got {}; {missing} missing, {unexpected} unexpected",
        expected.len(),
        actual.len()
    )];
    let differences = describe(&counts);
    lines.extend(differences.iter().take(SHOWN).cloned());
    if differences.len() > SHOWN {
        lines.push(format!("  ... {} more", differences.len() - SHOWN));
    }
    Err(lines.join("\n"))
}

/// Whether every user's rows are equal and stand in the same order. Rows of different users may be interleaved.
///
/// # Errors
/// With the first place where a user's rows differ.
pub fn compare_per_user(expected: &[Value], actual: &[Value], ignore: &[&str]) -> Result<(), String> {
    let by_user = |rows: &[Value]| {
        let mut users: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for row in rows {
            users.entry(row["user_id"].to_string()).or_default().push(canonical(row, ignore));
        }
        users
    };
    let (expected, actual) = (by_user(expected), by_user(actual));
    for user in expected.keys().chain(actual.keys()).collect::<BTreeSet<_>>() {
        let none = Vec::new();
        let (left, right) = (expected.get(user).unwrap_or(&none), actual.get(user).unwrap_or(&none));
        if left != right {
            let at = left.iter().zip(right).take_while(|(l, r)| l == r).count();
            let show = |rows: &[String]| rows.get(at).map_or("(nothing)".to_owned(), String::clone);
            return Err(format!("row {at} of user {user}:\n  - {}\n  + {}", show(left), show(right)));
        }
    }
    Ok(())
}

/// One line a difference; a missing and an unexpected row of one key are one changed row.
fn describe(counts: &BTreeMap<String, i64>) -> Vec<String> {
    let mut by_key: BTreeMap<String, (Vec<&str>, Vec<&str>)> = BTreeMap::new();
    for (text, n) in counts {
        let (missing, unexpected) = by_key.entry(key_of(text)).or_default();
        let side = if *n > 0 { missing } else { unexpected };
        side.extend(std::iter::repeat_n(text.as_str(), n.unsigned_abs() as usize));
    }
    let mut lines = Vec::new();
    for (key, (missing, unexpected)) in &by_key {
        let pairs = if key.is_empty() { 0 } else { missing.len().min(unexpected.len()) };
        for (left, right) in missing.iter().zip(unexpected).take(pairs) {
            lines.push(format!("  ~ {key}: {}", changed_fields(left, right)));
        }
        lines.extend(missing[pairs..].iter().map(|row| format!("  - {row}")));
        lines.extend(unexpected[pairs..].iter().map(|row| format!("  + {row}")));
    }
    lines
}

/// What names a row; empty if nothing does.
fn key_of(text: &str) -> String {
    let row: Value = serde_json::from_str(text).unwrap_or_default();
    match (&row["id"], &row["status"], &row["partition"], &row["offset"]) {
        (Value::Null, _, Value::Null, _) => String::new(),
        (Value::Null, _, partition, offset) => format!("{partition}/{offset}"),
        (id, Value::Null, ..) => id.to_string(),
        (id, status, ..) => format!("{status} {id}"),
    }
}

fn changed_fields(left: &str, right: &str) -> String {
    let fields = |text: &str| -> Map<String, Value> { serde_json::from_str(text).unwrap_or_default() };
    let (left, right) = (fields(left), fields(right));
    let names: BTreeSet<&String> = left.keys().chain(right.keys()).collect();
    let text = |value: Option<&Value>| value.map_or("(absent)".to_owned(), Value::to_string);
    let changed: Vec<String> = names
        .into_iter()
        .filter(|name| left.get(*name) != right.get(*name))
        .map(|name| format!("{name}: expected {}, got {}", text(left.get(name)), text(right.get(name))))
        .collect();
    changed.join("; ")
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let ordered: BTreeMap<&String, &Value> = fields.iter().collect();
            Value::Object(ordered.into_iter().map(|(k, v)| (k.clone(), sorted(v))).collect())
        }
        Value::Array(items) => items.iter().map(sorted).collect(),
        Value::Number(n) => match n.as_f64() {
            // Beyond 2^53 a double is not exact, and JSON integers are kept as they are.
            Some(d) if n.is_f64() && d.fract() == 0.0 && d.abs() < 9.0e15 => Value::from(d as i64),
            _ => value.clone(),
        },
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn multisets() {
        let a = [json!({"id": "a", "n": 1, "epoch": 4})];
        let b = [json!({"n": 1.0, "epoch": 5, "id": "a"})];
        assert!(compare(&a, &b, &["epoch"]).is_ok());
        let error = compare(&a, &b, &[]).unwrap_err();
        assert_eq!(error, "expected 1 rows, got 1; 1 missing, 1 unexpected\n  ~ \"a\": epoch: expected 4, got 5");
        let error = compare(&a, &[a.clone(), a.clone()].concat(), &[]).unwrap_err();
        assert!(error.contains("0 missing, 1 unexpected"), "{error}");
        assert!(compare(&[json!({"n": "1"})], &[json!({"n": 1})], &[]).is_err());
    }

    #[test]
    fn order_within_a_user() {
        let row = |user: &str, n: u64| json!({"user_id": user, "n": n});
        let rows = [row("a", 1), row("b", 1), row("a", 2)];
        assert!(compare_per_user(&rows, &[row("b", 1), row("a", 1), row("a", 2)], &[]).is_ok());
        assert!(compare_per_user(&rows, &[row("a", 2), row("b", 1), row("a", 1)], &[]).is_err());
        assert!(compare_per_user(&rows, &rows[..2], &[]).is_err());
        assert!(compare_per_user(&rows[..1], &rows, &[]).is_err());
    }
}
