//! Whether to look for the next message for a moment before sleeping.
//!
//! It pays while the next message comes before that moment has passed: a core that went idle takes as long to wake. It
//! costs a whole moment of CPU when the next message comes later, as with peers that take milliseconds for a task.

use std::time::Duration;

/// How long the controller looks for the next message before it sleeps. One request at a time, with nothing else on the
/// machine: 195 µs from client to engine and back, in place of 360; beyond this time nothing more is gained.
const AWAKE_TIME: Duration = Duration::from_micros(100);

/// A wait that ended within this time would have been a short one for a controller that was awake: what is above the
/// time to stay awake is the waking.
const SHORT_WAIT: Duration = Duration::from_micros(200);

/// One long wait weighs as much as this many short ones: waking costs less than a wait that was in vain, and a burst of
/// a few messages for each slow task must not look like a busy cluster.
const LONG_WAIT_WEIGHT: i32 = 4;

/// Short waits to begin again with, and how many of them a long past of either kind is worth at most.
const SCORE_MAX: i32 = 16;

/// Remembers how long the last waits were.
#[derive(Debug)]
pub(super) struct Awake {
    score: i32,
}

impl Awake {
    pub(super) fn new() -> Awake {
        Awake { score: 0 }
    }

    /// How long to stay awake in the next wait.
    pub(super) fn time(&self) -> Duration {
        if self.score > 0 { AWAKE_TIME } else { Duration::ZERO }
    }

    /// A wait took so long.
    pub(super) fn on_waited(&mut self, waited: Duration) {
        let change = if waited <= SHORT_WAIT { 1 } else { -LONG_WAIT_WEIGHT };
        self.score = (self.score + change).clamp(-SCORE_MAX, SCORE_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_micros(150);
    const LATE: Duration = Duration::from_millis(2);

    /// How many of the waits that follow a thousand of this pattern are awake.
    fn awake_waits(pattern: &[Duration]) -> usize {
        let mut awake = Awake::new();
        for waited in pattern.iter().cycle().take(1000) {
            awake.on_waited(*waited);
        }
        let is_awake = |waited: &&Duration| {
            let is_awake = awake.time() == AWAKE_TIME;
            awake.on_waited(**waited);
            is_awake
        };
        pattern.iter().cycle().take(100).filter(is_awake).count()
    }

    #[test]
    fn one_message_after_the_other_is_waited_for_awake() {
        assert_eq!(awake_waits(&[SOON]), 100);
    }

    #[test]
    fn an_idle_controller_sleeps() {
        assert_eq!(awake_waits(&[LATE]), 0);
    }

    #[test]
    fn bursts_of_a_few_messages_with_pauses_between_them_do_not_keep_it_awake() {
        assert_eq!(awake_waits(&[SOON, SOON, SOON, LATE]), 0);
    }

    #[test]
    fn a_pause_now_and_then_does_not_put_it_to_sleep() {
        let mut pattern = vec![SOON; 19];
        pattern.push(LATE);
        assert_eq!(awake_waits(&pattern), 100);
    }

    #[test]
    fn after_the_longest_pause_a_few_messages_wake_it() {
        let mut awake = Awake::new();
        for _ in 0..1000 {
            awake.on_waited(LATE);
        }
        for _ in 0..=SCORE_MAX {
            assert_eq!(awake.time(), Duration::ZERO);
            awake.on_waited(SOON);
        }
        assert_eq!(awake.time(), AWAKE_TIME);
    }
}
