//! Messages that a rank sends to itself. They never touch MPI, so that a large one cannot wait for its own
//! receiver.

use std::collections::VecDeque;

use crate::arguments::invalid;
use crate::array::Array;
use crate::communicator::{CommError, Operation};

/// Messages that may wait for their `recv`; they keep their arrays alive.
pub const LOOPBACK_MESSAGES_MAX: usize = 1024;

/// What a rank has sent to itself and not yet received.
#[derive(Debug, Default)]
pub struct Loopback {
    messages: VecDeque<(i32, Array)>,
}

impl Loopback {
    /// Queues an array; shares its memory.
    pub fn send(&mut self, array: &Array, tag: i32) -> Result<(), CommError> {
        if self.messages.len() == LOOPBACK_MESSAGES_MAX {
            let reason = format!(
                "{LOOPBACK_MESSAGES_MAX} messages to this rank itself wait to be received; call recv first"
            );
            return Err(invalid(Operation::Send, reason));
        }
        self.messages.push_back((tag, array.clone()));
        Ok(())
    }

    /// The oldest message of that tag.
    pub fn receive(&mut self, tag: i32) -> Option<Array> {
        let index = self.messages.iter().position(|(queued, _)| *queued == tag)?;
        self.messages.remove(index).map(|(_, array)| array)
    }

    /// As [`Loopback::receive`], where nobody else could send one: waiting would be for ever.
    pub fn receive_now(&mut self, tag: i32, rank: usize) -> Result<Array, CommError> {
        self.receive(tag).ok_or_else(|| {
            let reason = format!("rank {rank} has sent itself no message with tag {tag}; call send first");
            invalid(Operation::Receive, reason)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_back_in_order_by_tag() {
        let mut loopback = Loopback::default();
        for (tag, value) in [(1, 10i64), (2, 20), (1, 11)] {
            loopback.send(&Array::scalar(value), tag).expect("room");
        }
        assert_eq!(loopback.receive(2), Some(Array::scalar(20i64)));
        assert_eq!(loopback.receive(1), Some(Array::scalar(10i64)));
        assert_eq!(loopback.receive(1), Some(Array::scalar(11i64)));
        assert_eq!(loopback.receive(1), None);
    }

    #[test]
    fn a_full_queue_refuses() {
        let mut loopback = Loopback::default();
        for _ in 0..LOOPBACK_MESSAGES_MAX {
            loopback.send(&Array::scalar(1u8), 0).expect("room");
        }
        assert!(loopback.send(&Array::scalar(1u8), 0).is_err());
    }
}
