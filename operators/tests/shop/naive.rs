//! All views of the shop recomputed from the tables as they are: plain Rust over JSON, written from SEMANTICS "Silver" and "Gold".
//!
//! Shares no code with the product. A row is its JSON text with sorted keys.

use crate::case::{EpochOfCase, Tables};
use serde_json::{Value, json};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// The rows of each table, sorted as bytes.
pub(crate) type Contents = BTreeMap<String, Vec<String>>;

/// A row with its keys in order.
pub(crate) fn canonical(row: &Value) -> String {
    let fields: BTreeMap<_, _> = row.as_object().unwrap().iter().collect();
    serde_json::to_string(&fields).unwrap()
}

/// The views after each epoch; what is left of an earlier date is carried on.
pub(crate) fn contents_by_epoch(epochs: &[EpochOfCase]) -> Vec<Contents> {
    let mut segments: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    let after = |epoch: &EpochOfCase| {
        let mut contents = Contents::new();
        let views = pageviews_by_items(&epoch.tables);
        let purchases = purchases_enriched(&epoch.tables);
        let date = epoch.clock[..10].to_owned();
        segments.insert(date.clone(), engagement(&epoch.tables, &views, &date));
        for (name, rows) in [
            ("silver.users", users(&epoch.tables)),
            ("silver.items", items(&epoch.tables)),
            ("gold.top_selling_items", top_selling(&epoch.tables, &purchases)),
            ("gold.sales_performance_24h", sales(&purchases, &epoch.clock)),
            ("gold.top_converting_items", top_converting(&epoch.tables, &views, &purchases)),
            ("gold.pageviews_by_channel", by_channel(&views)),
            ("gold.user_engagement_segments", segments.values().flatten().cloned().collect()),
            ("silver.pageviews_by_items", views),
            ("silver.purchases_enriched", purchases),
        ] {
            let mut rows: Vec<String> = rows.iter().map(canonical).collect();
            rows.sort();
            contents.insert(name.to_owned(), rows);
        }
        contents
    };
    epochs.iter().map(after).collect()
}

fn users(tables: &Tables) -> Vec<Value> {
    let silver = |user: &Value| {
        let names: Vec<&str> = ["first_name", "last_name"].iter().filter_map(|name| user[*name].as_str()).collect();
        let mut row = user.clone();
        row["full_name"] = names.join(" ").into();
        row["valid_email"] = user["email"].as_str().is_some_and(is_email).into();
        row
    };
    tables.users.values().map(silver).collect()
}

/// By characters from the right: the letters at the end, then a dot, then the rest.
fn is_email(text: &str) -> bool {
    let chars: Vec<char> = text.chars().collect();
    let letters = chars.iter().rev().take_while(|c| c.is_ascii_alphabetic()).count();
    let rest: String = chars[..chars.len() - letters].iter().collect();
    let Some(rest) = rest.strip_suffix('.').filter(|_| letters >= 2) else { return false };
    let parts: Vec<&str> = rest.split('@').collect();
    let [name, host] = parts[..] else { return false };
    let all = |part: &str, more: &str| {
        !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
    };
    all(name, "._%+-") && all(host, ".-")
}

fn items(tables: &Tables) -> Vec<Value> {
    let silver = |item: &Value| {
        let mut row = item.clone();
        if let Some(category) = item["category"].as_str() {
            row["category"] = category.to_uppercase().into();
        }
        if item["price"].as_str().is_some_and(|price| cents(price) <= 0) {
            row["price"] = "0.00".into();
        }
        row
    };
    tables.items.values().map(silver).collect()
}

fn purchases_enriched(tables: &Tables) -> Vec<Value> {
    let enriched = |purchase: &Value| {
        let by_id = |rows: &BTreeMap<i64, Value>, id: &str| {
            purchase[id].as_i64().and_then(|id| rows.get(&id)).cloned().unwrap_or(Value::Null)
        };
        let (user, item) = (by_id(&tables.users, "user_id"), by_id(&tables.items, "item_id"));
        let total = purchase["quantity"]
            .as_i64()
            .zip(purchase["purchase_price"].as_str())
            .map(|(quantity, price)| i128::from(quantity) * cents(price));
        let created = purchase["created_at"].as_str();
        json!({
            "id": purchase["id"], "user_id": purchase["user_id"], "item_id": purchase["item_id"],
            "quantity": purchase["quantity"], "purchase_price": purchase["purchase_price"],
            "total_price": total.filter(|total| total.abs() < 100_000_000_000_000).map(decimal),
            "user_email": user["email"], "item_name": item["name"], "item_category": item["category"],
            "purchase_date": created.map(|at| &at[..10]),
            "purchase_hour": created.map(|at| at[11..13].parse::<i64>().unwrap()),
            "created_at": purchase["created_at"], "updated_at": purchase["updated_at"],
        })
    };
    tables.purchases.values().filter(|purchase| purchase["deleted"] != true).map(enriched).collect()
}

fn pageviews_by_items(tables: &Tables) -> Vec<Value> {
    let view = |line: &Vec<u8>| {
        let line: Value = serde_json::from_slice(line).ok()?;
        let (user_id, url) = (line["user_id"].as_i64()?, line["url"].as_str()?);
        let seconds = line["received_at"].as_i64().filter(|at| (0..=253_402_300_799).contains(at))?;
        let parts: Vec<&str> = url.split('/').collect();
        let ["", page, number] = parts[..] else { return None };
        let is_number = !number.is_empty() && number.chars().all(|c| c.is_ascii_digit());
        let item_id: i64 = number.parse().ok().filter(|_| is_number && !page.is_empty())?;
        let item = tables.items.get(&item_id).cloned().unwrap_or(Value::Null);
        Some(json!({
            "user_id": user_id, "item_id": item_id, "page": page, "item_name": item["name"],
            "item_category": item["category"], "channel": line["channel"].as_str(), "received_at": instant(seconds),
        }))
    };
    tables.pageviews.iter().filter_map(view).collect()
}

fn top_selling(tables: &Tables, purchases: &[Value]) -> Vec<Value> {
    let mut revenue: BTreeMap<i64, i128> = BTreeMap::new();
    for purchase in purchases {
        if let Some(item) = purchase["item_id"].as_i64() {
            *revenue.entry(item).or_default() += purchase["total_price"].as_str().map_or(0, cents);
        }
    }
    let mut order: Vec<_> = revenue.into_iter().map(|(item, cents)| (Reverse(cents), item)).collect();
    order.sort();
    let row = |(at, (Reverse(cents), id)): (usize, &(Reverse<i128>, i64))| {
        let item = tables.items.get(id).cloned().unwrap_or(Value::Null);
        json!({"item_id": id, "item_name": item["name"], "item_category": item["category"],
               "total_revenue": decimal(*cents), "rank": at + 1})
    };
    order.iter().take(10).enumerate().map(row).collect()
}

fn sales(purchases: &[Value], clock: &str) -> Vec<Value> {
    let now = micros(clock);
    let mut revenue: BTreeMap<i64, i128> = BTreeMap::new();
    for purchase in purchases {
        let Some(created) = purchase["created_at"].as_str() else { continue };
        if now - 86_400_000_000 < micros(created) && micros(created) <= now {
            let hour = purchase["purchase_hour"].as_i64().unwrap();
            *revenue.entry(hour).or_default() += purchase["total_price"].as_str().map_or(0, cents);
        }
    }
    let row = |(hour, cents)| json!({"purchase_hour": hour, "total_revenue": decimal(cents)});
    revenue.into_iter().map(row).collect()
}

fn top_converting(tables: &Tables, views: &[Value], purchases: &[Value]) -> Vec<Value> {
    let viewed: BTreeSet<(i64, i64, &str)> = views
        .iter()
        .map(|view| {
            let date = &view["received_at"].as_str().unwrap()[..10];
            (view["user_id"].as_i64().unwrap(), view["item_id"].as_i64().unwrap(), date)
        })
        .collect();
    let bought = |purchase: &&Value| {
        let key = (purchase["user_id"].as_i64(), purchase["item_id"].as_i64(), purchase["purchase_date"].as_str());
        matches!(key, (Some(user), Some(item), Some(date)) if viewed.contains(&(user, item, date)))
    };
    let bought: Vec<&Value> = purchases.iter().filter(bought).collect();
    let item_ids: BTreeSet<i64> = viewed.iter().map(|(_, item, _)| *item).collect();
    let users =
        |rows: &[&Value]| rows.iter().map(|row| row["user_id"].as_i64().unwrap()).collect::<BTreeSet<_>>().len();
    let mut rows = Vec::new();
    for id in item_ids {
        let of_item = |row: &&Value| row["item_id"] == id;
        let views: Vec<&Value> = views.iter().filter(of_item).collect();
        let bought: Vec<&Value> = bought.iter().copied().filter(of_item).collect();
        let item = tables.items.get(&id).cloned().unwrap_or(Value::Null);
        let rate = bought.len() as f64 / views.len() as f64;
        let row = json!({
            "item_id": id, "item_name": item["name"], "item_category": item["category"],
            "unique_pageview_users": users(&views), "unique_purchase_users": users(&bought),
            "total_purchases": bought.len(), "total_pageviews": views.len(), "conversion_rate": rate,
        });
        rows.push((rate, bought.len(), id, row));
    }
    rows.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.cmp(&a.1)).then(a.2.cmp(&b.2)));
    rows.into_iter().take(10).map(|(.., row)| row).collect()
}

fn by_channel(views: &[Value]) -> Vec<Value> {
    let mut counts: BTreeMap<Option<&str>, i64> = BTreeMap::new();
    views.iter().for_each(|view| *counts.entry(view["channel"].as_str()).or_default() += 1);
    counts.into_iter().map(|(channel, count)| json!({"channel": channel, "total_pageviews": count})).collect()
}

fn engagement(tables: &Tables, views: &[Value], date: &str) -> Vec<Value> {
    let row = |user: &Value| {
        let dates = views.iter().filter(|view| view["user_id"] == user["id"]);
        let dates: Vec<&str> = dates.map(|view| &view["received_at"].as_str().unwrap()[..10]).collect();
        let last = dates.iter().max();
        let days = |date: &str| micros(&format!("{date}T00:00:00.000000Z")) / 86_400_000_000;
        let since = last.map(|last| days(date) - days(last));
        let segment = if dates.len() >= 50 && since.unwrap() <= 3 {
            "high_engagement"
        } else if (10..=49).contains(&dates.len()) && since.unwrap() <= 7 {
            "medium_engagement"
        } else {
            "low_engagement"
        };
        json!({
            "user_id": user["id"], "email": user["email"], "full_name": user["full_name"],
            "total_pageviews": dates.len(), "active_days": dates.iter().collect::<BTreeSet<_>>().len(),
            "last_active_date": last, "days_since_last_active": since, "engagement_segment": segment, "segment_date": date,
        })
    };
    users(tables).iter().filter(|user| user["valid_email"] == true).map(row).collect()
}

fn cents(decimal: &str) -> i128 {
    let (whole, part) = decimal.split_once('.').unwrap();
    assert_eq!(part.len(), 2);
    format!("{whole}{part}").parse().unwrap()
}

fn decimal(cents: i128) -> String {
    let digits = format!("{:03}", cents.abs());
    let (whole, part) = digits.split_at(digits.len() - 2);
    format!("{}{whole}.{part}", if cents < 0 { "-" } else { "" })
}

fn days_in_year(year: i64) -> i64 {
    if (year % 4 == 0 && year % 100 != 0) || year % 400 == 0 { 366 } else { 365 }
}

fn days_in_month(year: i64, month: usize) -> i64 {
    [31, days_in_year(year) - 337, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31][month - 1]
}

fn micros(text: &str) -> i64 {
    let n = |range: std::ops::Range<usize>| text[range].parse::<i64>().unwrap();
    let (year, month) = (n(0..4), n(5..7) as usize);
    let days = (1970..year).map(days_in_year).sum::<i64>() - (year..1970).map(days_in_year).sum::<i64>()
        + (1..month).map(|month| days_in_month(year, month)).sum::<i64>()
        + n(8..10)
        - 1;
    (days * 86_400 + n(11..13) * 3_600 + n(14..16) * 60 + n(17..19)) * 1_000_000 + n(20..26)
}

fn instant(seconds: i64) -> String {
    let (mut days, rest) = (seconds / 86_400, seconds % 86_400);
    let (mut year, mut month) = (1970, 1);
    while days >= days_in_year(year) {
        days -= days_in_year(year);
        year += 1;
    }
    while days >= days_in_month(year, month) {
        days -= days_in_month(year, month);
        month += 1;
    }
    let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}.000000Z", days + 1)
}
