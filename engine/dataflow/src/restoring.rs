//! How a start that rebuilds its views shows itself: a progress bar on a terminal, else a line of the log every few seconds.

use dataflow_runtime::measures::restore::{LOG, Progress, RestoreMeasure};
use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::time::Duration;

/// Between lines of the log.
const SAY_EVERY: Duration = Duration::from_secs(5);

/// Of one start.
pub(crate) struct Restoring {
    has_terminal: bool,
    bar: Option<ProgressBar>,
    /// When the last line was logged, or the first look was taken.
    said: Option<Duration>,
}

impl Restoring {
    pub(crate) fn new(has_terminal: bool) -> Restoring {
        Restoring { has_terminal, bar: None, said: None }
    }

    /// Shows where it is; whether it is under way, and so nothing else is to be shown.
    pub(crate) fn show(&mut self, restore: Option<RestoreMeasure>, now: Duration) -> bool {
        let Some(restore) = restore.filter(|restore| !restore.is_over) else {
            self.bar.take().iter().for_each(ProgressBar::finish_and_clear);
            return false;
        };
        // Not known yet; or state that is no collection's, which is there at once and not worth a bar.
        if restore.all().rows_total == 0 {
            return true;
        }
        if self.has_terminal {
            let bar = self.bar.get_or_insert_with(bar);
            let all = restore.all();
            bar.set_message(text(&restore));
            bar.set_length(all.rows_total);
            bar.set_position(all.rows);
        } else if now >= *self.said.get_or_insert(now) + SAY_EVERY {
            self.said = Some(now);
            tracing::info!(
                target: LOG,
                rows = restore.collections.rows,
                of_about = restore.collections.rows_total,
                view_rows = restore.views.rows,
                of_about_views = restore.views.rows_total,
                rows_per_second = restore.rows_per_second.round() as u64,
                seconds_left = restore.remaining_seconds.map(|seconds| seconds.round() as u64),
                "the views are being rebuilt"
            );
        }
        true
    }
}

fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template("restoring [{bar:28}] {msg}").expect("the template is right");
    ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()).with_style(style.progress_chars("=> "))
}

/// Rows, rate, and what is left.
fn text(restore: &RestoreMeasure) -> String {
    let of = |Progress { rows, rows_total }| {
        if rows < rows_total {
            format!("{} of about {} rows", HumanCount(rows), HumanCount(rows_total))
        } else {
            format!("{} rows", HumanCount(rows))
        }
    };
    let left = restore.remaining_seconds.map_or_else(String::new, |seconds| format!(", about {seconds:.0} s left"));
    let rate = HumanCount(restore.rows_per_second.round() as u64);
    format!("{}, views {}, {rate} rows/s{left}", of(restore.collections), of(restore.views))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_how_far_it_is() {
        let check = |[rows, rows_total, views, views_total]: [u64; 4], remaining_seconds, expected| {
            let measure = RestoreMeasure {
                is_over: false,
                collections: Progress { rows, rows_total },
                views: Progress { rows: views, rows_total: views_total },
                by_collection: Default::default(),
                seconds: 3.0,
                rows_per_second: 1234.4,
                remaining_seconds,
            };
            assert_eq!(text(&measure), expected);
        };
        check([0, 10_000, 0, 7], None, "0 of about 10,000 rows, views 0 of about 7 rows, 1,234 rows/s");
        check([10_000, 10_000, 5, 7], Some(3.4), "10,000 rows, views 5 of about 7 rows, 1,234 rows/s, about 3 s left");
    }

    #[test]
    fn it_is_shown_while_it_lasts() {
        let measure = |is_over, rows_total| RestoreMeasure {
            is_over,
            collections: Progress { rows: 0, rows_total },
            views: Progress::default(),
            by_collection: Default::default(),
            seconds: 0.0,
            rows_per_second: 0.0,
            remaining_seconds: None,
        };
        let mut restoring = Restoring::new(false);
        let mut shows = |restore| restoring.show(restore, Duration::ZERO);
        assert!(
            !shows(None)
                && shows(Some(measure(false, 0)))
                && shows(Some(measure(false, 1)))
                && !shows(Some(measure(true, 1)))
        );
    }
}
