//! One round: everything that happens in it, in order.

use super::{Event, LSN_STEP, SNAPSHOT_LSN, Shop, Step};

/// More than a round has transactions: their log positions stay apart from those of the next.
const STEPS_MAX: u64 = 256;

/// The steps of a round.
pub(super) fn steps(shop: &Shop, round: u64) -> Vec<Step> {
    let mut steps = vec![shop.item_step(round)];
    steps.extend(shop.user_steps(round));
    steps.extend(shop.purchase_steps(round));
    steps.extend(shop.visit_steps(round));
    // Stable: what is due at once stays as it stands here.
    steps.sort_by_key(|step| step.due_us);
    let mut lsn = SNAPSHOT_LSN + (round * STEPS_MAX + 1) * LSN_STEP;
    for step in &mut steps {
        if let Event::Transaction(changes) = &mut step.event {
            changes.iter_mut().for_each(|change| change.lsn = lsn);
            lsn += LSN_STEP;
        }
    }
    steps
}
