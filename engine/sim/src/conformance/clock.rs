//! What the engine relies on in clocks and in tasks.

use dataflow_core::{Clock, Spawner, Task, TaskState};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What every clock does. `pass` lets at least so much time pass.
///
/// # Panics
/// When it does not conform.
pub fn clock(clock: &dyn Clock, pass: impl Fn(Duration)) {
    const STEP: Duration = Duration::from_millis(3);
    let mut before = (clock.monotonic(), clock.wall());
    for _ in 0..10 {
        pass(STEP);
        let now = (clock.monotonic(), clock.wall());
        assert!(now.0 >= before.0 + STEP, "monotonic time went from {:?} to {:?}", before.0, now.0);
        assert!(now.1.since(before.1) >= STEP.as_micros() as i64, "the wall clock went from {} to {}", before.1, now.1);
        before = now;
    }
    let again: Vec<Duration> = (0..1_000).map(|_| clock.monotonic()).collect();
    assert!(again.is_sorted(), "monotonic time goes back");
}

/// What every spawner does. `until` lets tasks run until a condition holds, and says whether it came to that.
///
/// # Panics
/// When it does not conform.
pub fn spawner(spawner: &dyn Spawner, until: impl Fn(&dyn Fn() -> bool) -> bool) {
    // Once at the start without a wake, and again after each wake or several at once.
    let waiting = Told::default();
    let waker = spawner.spawn("waits", waiting.task(TaskState::Waiting));
    assert!(until(&|| waiting.runs() >= 1), "a task is not run at the start");
    for _ in 0..20 {
        let before = waiting.runs();
        (0..3).for_each(|_| waker.wake());
        assert!(until(&|| waiting.runs() > before), "a wake is lost");
    }

    // A wake during a run is not lost: it comes before the run has looked, or there is another run.
    let woken = Told::default();
    let waker = spawner.spawn("wakes itself", woken.task(TaskState::Waiting));
    *woken.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(waker.clone());
    waker.wake();
    assert!(until(&|| woken.runs() >= WAKES_ITSELF), "a wake during a run is lost");

    // A sleeper is run without a wake, and earlier with one.
    let sleeper = Told::default();
    drop(spawner.spawn("sleeps", sleeper.task(TaskState::Sleeping(Duration::from_millis(1)))));
    assert!(until(&|| sleeper.runs() >= 5), "a sleeper is not run again");
    let long = Told::default();
    let waker = spawner.spawn("sleeps long", long.task(TaskState::Sleeping(Duration::from_secs(1 << 30))));
    assert!(until(&|| long.runs() >= 1), "a task is not run at the start");
    let before = long.runs();
    waker.wake();
    assert!(until(&|| long.runs() > before), "a sleeper is not woken");

    // Whoever is done is dropped, and waking it harms nobody.
    let done = Told::default();
    let waker = spawner.spawn("is done", done.task(TaskState::Done));
    assert!(until(&|| Arc::strong_count(&done.runs) == 1), "a task that is done is not dropped");
    waker.wake();
    let others = sleeper.runs() + 3;
    assert!(until(&|| sleeper.runs() >= others), "the other tasks go on");
    assert_eq!(done.runs(), 1, "a task that is done is run again");
}

/// Runs after which a task that wakes itself stops to.
const WAKES_ITSELF: usize = 6;

/// What a task tells of its runs.
#[derive(Default)]
struct Told {
    runs: Arc<AtomicUsize>,
    /// What it wakes itself by.
    waker: Arc<Mutex<Option<dataflow_core::Waker>>>,
}

impl Told {
    fn runs(&self) -> usize {
        self.runs.load(SeqCst)
    }

    fn task(&self, wants: TaskState) -> Box<dyn Task> {
        Box::new(Counted { runs: self.runs.clone(), waker: self.waker.clone(), wants })
    }
}

struct Counted {
    runs: Arc<AtomicUsize>,
    waker: Arc<Mutex<Option<dataflow_core::Waker>>>,
    wants: TaskState,
}

impl Task for Counted {
    fn run(&mut self) -> TaskState {
        let runs = self.runs.fetch_add(1, SeqCst) + 1;
        let waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner);
        waker.iter().filter(|_| runs < WAKES_ITSELF).for_each(dataflow_core::Waker::wake);
        self.wants
    }
}
