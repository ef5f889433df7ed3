//! `silver.purchases_enriched`: purchases that were not taken back, with what they came to, by whom and of what.
//!
//! ```sql
//! SELECT p.id, p.user_id, p.item_id, p.quantity, p.purchase_price,
//!        try_cast(p.quantity * p.purchase_price AS decimal(14, 2)) AS total_price,
//!        u.email AS user_email, i.name AS item_name, i.category AS item_category,
//!        date(p.created_at) AS purchase_date, hour(p.created_at) AS purchase_hour, p.created_at, p.updated_at
//! FROM purchases p LEFT JOIN users u ON u.id = p.user_id LEFT JOIN items i ON i.id = p.item_id
//! WHERE p.deleted IS NOT TRUE
//! ```

use super::{ItemLabels, Purchase, User, label};
use crate::table_row;
use crate::view::{Date, Decimal, Text, View, hour_of};
use dataflow_core::Micros;

table_row! {
    /// A row of `silver.purchases_enriched`.
    pub struct PurchaseEnriched("silver.purchases_enriched", key: id) {
        /// Its number.
        pub id: i32,
        /// Who bought.
        pub user_id: Option<i64>,
        /// What was bought.
        pub item_id: Option<i64>,
        /// How many pieces.
        pub quantity: Option<i32>,
        /// Price of one piece.
        pub purchase_price: Option<Decimal<12, 2>>,
        /// Price of all; null too when it has too many digits.
        pub total_price: Option<Decimal<14, 2>>,
        /// The buyer's address as it is now.
        pub user_email: Option<Text>,
        /// The item's name as it is now.
        pub item_name: Option<Text>,
        /// The item's category as it came last.
        pub item_category: Option<Text>,
        /// Day of the purchase.
        pub purchase_date: Option<Date>,
        /// Hour of its day.
        pub purchase_hour: Option<i32>,
        /// When it was bought.
        pub created_at: Option<Micros>,
        /// When the row was last changed.
        pub updated_at: Option<Micros>,
    }
}

/// What a purchase came to: its digits without the point, however many; `None` when a factor is null.
fn exact_total(purchase: &Purchase) -> Option<i128> {
    Some(i128::from(purchase.quantity?) * purchase.purchase_price?.unscaled())
}

/// What a purchase came to; `None` too when that does not fit its column.
pub(super) fn total_price(purchase: &Purchase) -> Option<Decimal<14, 2>> {
    exact_total(purchase).and_then(Decimal::new)
}

/// The purchases that were not taken back. All views of purchases are made of these.
pub(super) fn live_purchases<'s>(purchases: &View<'s, Purchase>) -> View<'s, Purchase> {
    purchases.filter(|purchase| purchase.deleted != Some(true))
}

/// The ids of the live purchases whose total is null because it does not fit.
pub(super) fn totals_that_do_not_fit<'s>(live: &View<'s, Purchase>) -> View<'s, i32> {
    live.filter(|purchase| exact_total(purchase).is_some() && total_price(purchase).is_none())
        .map(|purchase| purchase.id)
}

pub(super) fn purchases_enriched<'s>(
    live: &View<'s, Purchase>,
    users: &View<'s, User>,
    labels: &ItemLabels<'s>,
) -> View<'s, PurchaseEnriched> {
    let emails = users.index(|user| (i64::from(user.id), user.email));
    live.clone()
        .named("silver.purchases_enriched")
        .left_join(|purchase| purchase.user_id, &emails, |purchase, email| (purchase.clone(), email.cloned().flatten()))
        .left_join(
            |(purchase, _)| purchase.item_id,
            labels,
            |(purchase, email), item| {
                let (item_name, item_category) = label(item);
                PurchaseEnriched {
                    id: purchase.id,
                    user_id: purchase.user_id,
                    item_id: purchase.item_id,
                    quantity: purchase.quantity,
                    purchase_price: purchase.purchase_price,
                    total_price: total_price(purchase),
                    user_email: email.clone(),
                    item_name,
                    item_category,
                    purchase_date: purchase.created_at.map(Date::of),
                    purchase_hour: purchase.created_at.map(hour_of),
                    created_at: purchase.created_at,
                    updated_at: purchase.updated_at,
                }
            },
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(quantity: Option<i32>, price: Option<i128>, exact: Option<i128>, total: Option<i128>) {
        let purchase_price = price.and_then(Decimal::new);
        let purchase = Purchase {
            id: 1,
            user_id: None,
            item_id: None,
            quantity,
            purchase_price,
            deleted: None,
            created_at: None,
            updated_at: None,
        };
        assert_eq!(exact_total(&purchase), exact);
        assert_eq!(total_price(&purchase).map(Decimal::unscaled), total);
    }

    #[test]
    fn a_total_fits_or_is_null() {
        check(Some(2), Some(-150), Some(-300), Some(-300));
        check(None, Some(1), None, None);
        check(Some(1), None, None, None);
        check(Some(100), Some(999_999_999_999), Some(99_999_999_999_900), Some(99_999_999_999_900));
        check(Some(2_500), Some(40_000_000_000), Some(100_000_000_000_000), None);
        check(Some(i32::MIN), Some(999_999_999_999), Some(-2_147_483_648 * 999_999_999_999), None);
    }
}
