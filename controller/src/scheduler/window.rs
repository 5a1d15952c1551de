//! How many tasks an engine may hold at once.
//!
//! A task that waits on its engine behind another cannot move to an idle engine, so an engine that runs long tasks
//! holds one. But one task at a time leaves an engine idle for a round trip through the controller between two
//! tasks, which is longer than a small task takes. The window therefore follows what the engine shows: it grows by
//! one with each quick answer, and is one again after the first that is not. At most
//! `WINDOW_MAX * QUICK` of work waits on an engine.

use std::time::{Duration, Instant};

/// Measured with four engines and tasks that do nothing: 8,000 tasks a second with a window of 1, 19,000 with 4,
/// 24,000 with 16, and no more with 64.
const WINDOW_MAX: usize = 16;

/// An answer that came within this time of the one before it (or of the task, if the engine was idle) was quick.
const QUICK: Duration = Duration::from_millis(3);

/// The window of one engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Window {
    /// As the user said; `usize::MAX` is no end.
    Fixed(usize),
    /// Follows the engine's pace.
    Paced {
        /// Tasks that the engine may hold now.
        size: usize,
        /// Since when the engine works on what it works on now.
        since: Instant,
    },
}

impl Window {
    /// `--hwm`: a number, 0 for no end; none: paced.
    pub(super) fn new(hwm: Option<usize>, now: Instant) -> Window {
        match hwm {
            None => Window::Paced { size: 1, since: now },
            Some(0) => Window::Fixed(usize::MAX),
            Some(size) => Window::Fixed(size),
        }
    }

    /// Tasks that the engine may hold.
    pub(super) fn size(&self) -> usize {
        match self {
            Window::Fixed(size) | Window::Paced { size, .. } => *size,
        }
    }

    /// An idle engine was given a task.
    pub(super) fn on_started(&mut self, now: Instant) {
        if let Window::Paced { since, .. } = self {
            *since = now;
        }
    }

    /// The engine answered a task.
    pub(super) fn on_answered(&mut self, now: Instant) {
        if let Window::Paced { size, since } = self {
            let quick = now.saturating_duration_since(*since) <= QUICK;
            *size = if quick { (*size + 1).min(WINDOW_MAX) } else { 1 };
            *since = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_grows_while_answers_are_quick_and_ends_with_the_first_that_is_not() {
        let mut now = Instant::now();
        let mut window = Window::new(None, now);
        assert_eq!(window.size(), 1);
        for expected in 2..=WINDOW_MAX {
            now += QUICK;
            window.on_answered(now);
            assert_eq!(window.size(), expected);
        }
        window.on_answered(now);
        assert_eq!(window.size(), WINDOW_MAX);
        window.on_answered(now + QUICK + Duration::from_micros(1));
        assert_eq!(window.size(), 1);
    }

    #[test]
    fn the_time_that_an_engine_was_idle_does_not_count() {
        let now = Instant::now();
        let mut window = Window::new(None, now);
        window.on_started(now + Duration::from_secs(60));
        window.on_answered(now + Duration::from_secs(60) + QUICK);
        assert_eq!(window.size(), 2);
    }

    #[test]
    fn a_window_that_the_user_set_stays() {
        let now = Instant::now();
        for (hwm, size) in [(Some(1), 1), (Some(7), 7), (Some(0), usize::MAX)] {
            let mut window = Window::new(hwm, now);
            window.on_answered(now);
            window.on_answered(now + Duration::from_secs(60));
            assert_eq!(window.size(), size);
        }
    }
}
