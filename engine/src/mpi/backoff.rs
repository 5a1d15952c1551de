//! How often a waiting rank looks: at once while its peers are likely to be near, seldom when they are not.

use std::time::{Duration, Instant};

/// Test and yield for as long as ranks that run on time may differ.
pub(super) const SPIN: Duration = Duration::from_micros(200);

/// As [`SPIN`], while all ranks are known to work on the same transfer: MPI moves data only while it is called.
pub(super) const SPIN_TOGETHER: Duration = Duration::from_micros(500);

/// As [`SPIN_TOGETHER`], where the steps of the transfer cannot be seen: an operation on user memory.
pub(super) const SPIN_UNSEEN: Duration = Duration::from_millis(100);

/// As [`SPIN`], for a message of user code: it may be long, and its sender may have been late.
pub(super) const SPIN_MESSAGE: Duration = Duration::from_millis(2);

/// A yield that takes longer gave a whole time slice to a program that computes. Ranks that only wait for each
/// other give the core back within microseconds.
const YIELD_LONG: Duration = Duration::from_millis(2);

/// For so long after a long yield, sleep instead: who sleeps is run as soon as it wakes, who yields goes to the
/// end of the queue. Beside two programs that computed on two cores, three thousand short calls of two ranks took
/// a minute with yields.
const CROWDED_FOR: Duration = Duration::from_millis(200);

/// Shorter waits are not shown to other threads.
const SHOWN_AFTER: Duration = Duration::from_millis(2);

/// From then on sleep between two looks: after so much waiting, for so long. What a waiting rank costs then is
/// measured by `examples/allreduce_cost.rs`.
const SLEEPS: [(Duration, Duration); 3] = [
    (Duration::from_secs(10), Duration::from_millis(5)),
    (Duration::from_secs(1), Duration::from_millis(1)),
    (SPIN, Duration::from_micros(50)),
];

/// How often the idle hook is called.
const IDLE_INTERVAL: Duration = Duration::from_millis(20);

/// One wait.
#[derive(Debug)]
pub(super) struct Backoff {
    since: Instant,
    /// When something last happened.
    quiet_since: Instant,
    steps: u64,
    idle: Instant,
    crowded_until: Option<Instant>,
}

/// What to do before looking again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pause {
    Yield,
    Sleep(Duration),
}

impl Backoff {
    /// `crowded_until` is what the wait before this one has left.
    pub(super) fn new(now: Instant, crowded_until: Option<Instant>) -> Backoff {
        Backoff { since: now, quiet_since: now, steps: 0, idle: now, crowded_until }
    }

    /// Until when this core is taken to be wanted by other programs.
    pub(super) fn crowded_until(&self) -> Option<Instant> {
        self.crowded_until
    }

    /// The pause has been taken, and was over now.
    pub(super) fn paused(&mut self, pause: Pause, began: Instant, now: Instant) {
        if pause == Pause::Yield && now.saturating_duration_since(began) >= YIELD_LONG {
            self.crowded_until = Some(now + CROWDED_FOR);
        }
    }

    pub(super) fn since(&self) -> Instant {
        self.since
    }

    /// What to do before looking again. `steps` counts what has happened so far; `spin`: how long not to sleep after
    /// a step.
    pub(super) fn pause(&mut self, now: Instant, steps: u64, spin: Duration) -> Pause {
        if steps != self.steps {
            self.steps = steps;
            self.quiet_since = now;
        }
        let waited = now.saturating_duration_since(self.quiet_since);
        let is_crowded = self.crowded_until.is_some_and(|until| now < until);
        if !is_crowded && waited < spin {
            return Pause::Yield;
        }
        let (_, shortest) = SLEEPS[SLEEPS.len() - 1];
        let sleep = SLEEPS.into_iter().find(|(after, _)| waited >= *after);
        Pause::Sleep(sleep.map_or(shortest, |(_, sleep)| sleep))
    }

    /// Whether the wait is long enough to be shown.
    pub(super) fn is_worth_showing(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= SHOWN_AFTER
    }

    /// Whether the idle hook is due; if so it is not for a while.
    pub(super) fn is_idle(&mut self, now: Instant) -> bool {
        let due = now.saturating_duration_since(self.idle) >= IDLE_INTERVAL;
        if due {
            self.idle = now;
        }
        due
    }
}

impl Pause {
    pub(super) fn take(self) {
        match self {
            // `std::thread::yield_now` is sched_yield: other ranks on this core go first.
            Pause::Yield => std::thread::yield_now(),
            Pause::Sleep(duration) => std::thread::sleep(duration),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longer_the_wait_the_longer_the_sleeps() {
        let start = Instant::now();
        let mut backoff = Backoff::new(start, None);
        let mut after = |micros| backoff.pause(start + Duration::from_micros(micros), 0, SPIN);
        assert_eq!(after(0), Pause::Yield);
        assert_eq!(after(199), Pause::Yield);
        assert_eq!(after(200), Pause::Sleep(Duration::from_micros(50)));
        assert_eq!(after(1_000_000), Pause::Sleep(Duration::from_millis(1)));
        assert_eq!(after(60_000_000), Pause::Sleep(Duration::from_millis(5)));
    }

    #[test]
    fn whenever_something_happened_the_wait_begins_anew() {
        let start = Instant::now();
        let mut backoff = Backoff::new(start, None);
        let mut at = |micros, steps, spin| backoff.pause(start + Duration::from_micros(micros), steps, spin);
        assert_eq!(at(1_000, 0, SPIN), Pause::Sleep(Duration::from_micros(50)));
        assert_eq!(at(400, 0, SPIN_TOGETHER), Pause::Yield);
        assert_eq!(at(5_000, 0, SPIN_TOGETHER), Pause::Sleep(Duration::from_micros(50)));
        assert_eq!(at(5_000, 1, SPIN), Pause::Yield);
        assert_eq!(at(5_300, 1, SPIN), Pause::Sleep(Duration::from_micros(50)));
    }

    #[test]
    fn after_a_long_yield_it_sleeps_for_a_while() {
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        let mut backoff = Backoff::new(start, None);
        backoff.paused(Pause::Sleep(Duration::from_millis(5)), start, after(9));
        backoff.paused(Pause::Yield, after(9), after(10));
        assert_eq!(backoff.crowded_until(), None);
        backoff.paused(Pause::Yield, after(10), after(13));
        let mut next = Backoff::new(after(14), backoff.crowded_until());
        assert_eq!(next.pause(after(14), 0, SPIN_TOGETHER), Pause::Sleep(Duration::from_micros(50)));
        let mut later = Backoff::new(after(214), backoff.crowded_until());
        assert_eq!(later.pause(after(214), 0, SPIN), Pause::Yield);
    }

    #[test]
    fn the_idle_hook_is_due_every_20_ms() {
        let start = Instant::now();
        let mut backoff = Backoff::new(start, None);
        assert!(!backoff.is_idle(start + Duration::from_millis(19)));
        assert!(backoff.is_idle(start + Duration::from_millis(20)));
        assert!(!backoff.is_idle(start + Duration::from_millis(39)));
        assert!(backoff.is_idle(start + Duration::from_millis(40)));
    }
}
