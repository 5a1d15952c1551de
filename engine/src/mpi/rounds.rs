//! The sequence of rounds of this rank: the one it is in, those it has left, and what it knows of its peers.

use std::collections::VecDeque;

use super::Fabric;
use super::calls::{MpiError, Request};
use super::job::Job;
use super::round::{Abandoned, Round, Verdict};

/// Calls that were interrupted and that other ranks have not come to; each keeps two requests alive.
pub(super) const ABANDONED_MAX: usize = 1024;

/// Notices that wait to be delivered; more are not sent: they only serve to name the missing ranks.
const NOTICES_MAX: usize = 4096;

/// The tag of notices on the communicator of the rounds, which carries no other messages.
const NOTICE_TAG: i32 = 0;

/// Says which rounds a rank has entered, and what follows from that: [`TELL`], [`ASK`] or [`GOODBYE`].
type Notice = [u64; 2];

/// Nothing.
const TELL: u64 = 0;
/// Its sender wants to know the same of its reader.
const ASK: u64 = 1;
/// It is the last one of its sender: the communicator is to be freed.
const GOODBYE: u64 = 2;

/// Requests point into it; it must not be dropped before they are complete.
#[derive(Debug)]
pub(super) struct Rounds {
    /// The number of the next round.
    next: u64,
    /// The round that this rank is in, or was in when it was interrupted after all had committed.
    current: Option<Round>,
    /// Rounds that this rank has left while others had not entered them.
    abandoned: VecDeque<Abandoned>,
    /// The newest round that each rank is known to have entered.
    heard: Vec<u64>,
    notices: Vec<(Request, Box<Notice>)>,
    /// Whether this rank has said goodbye.
    is_leaving: bool,
    /// The ranks that have.
    gone: Vec<bool>,
}

impl Rounds {
    pub(super) fn new(size: usize) -> Rounds {
        Rounds {
            next: 1,
            current: None,
            abandoned: VecDeque::new(),
            heard: vec![0; size],
            notices: Vec::new(),
            is_leaving: false,
            gone: vec![false; size],
        }
    }

    /// Whether so many rounds were abandoned that no more can be.
    pub(super) fn is_full(&self) -> bool {
        self.abandoned.len() >= ABANDONED_MAX
    }

    /// Whether a round is under way.
    pub(super) fn is_busy(&self) -> bool {
        self.current.is_some()
    }

    /// Whether all requests are complete.
    pub(super) fn is_quiet(&self) -> bool {
        self.current.is_none() && self.abandoned.is_empty() && self.notices.is_empty()
    }

    /// Enters the next round.
    pub(super) fn enter(&mut self, fabric: &Fabric, cell: i64, job: Job) -> Result<(), MpiError> {
        assert!(self.current.is_none(), "one round after the other");
        self.current = Some(Round::enter(fabric, self.next, cell, job)?);
        self.heard[fabric.rank] = self.next;
        self.next += 1;
        Ok(())
    }

    /// Drives the current round. `None`: it is not over yet, or there is none.
    pub(super) fn drive(&mut self, fabric: &Fabric, interrupted: bool) -> Result<Option<Verdict>, MpiError> {
        let Some(round) = &mut self.current else { return Ok(None) };
        let verdict = round.drive(fabric, interrupted)?;
        if verdict.is_some() {
            self.current = None;
        }
        Ok(verdict)
    }

    /// Whether the current round waits for ranks to enter it.
    pub(super) fn is_voting(&self) -> bool {
        self.current.as_ref().is_some_and(Round::is_voting)
    }

    /// A number that changes with every step of the current round.
    pub(super) fn steps(&self) -> u64 {
        self.current.as_ref().map_or(0, Round::steps)
    }

    /// Whether all ranks are in the current round.
    pub(super) fn is_together(&self) -> bool {
        self.current.as_ref().is_some_and(|round| !round.is_voting())
    }

    /// Leaves the current round, which is voting, and tells the other ranks. Returns its number.
    pub(super) fn abandon(&mut self, fabric: &Fabric) -> Result<u64, MpiError> {
        let round = self.current.take().expect("only a round that is voting is left");
        let number = round.number;
        self.abandoned.push_back(round.abandon(fabric)?);
        for peer in (0..fabric.size).filter(|&peer| peer != fabric.rank) {
            self.notify(fabric, peer, ASK)?;
        }
        Ok(number)
    }

    /// The ranks that are not known to have entered a round.
    pub(super) fn missing(&self, round: u64) -> Vec<usize> {
        self.heard.iter().enumerate().filter(|(_, heard)| **heard < round).map(|(rank, _)| rank).collect()
    }

    /// Forgets what is complete and reads notices.
    pub(super) fn tidy(&mut self, fabric: &Fabric) -> Result<(), MpiError> {
        while let Some(round) = self.abandoned.front_mut() {
            if !round.is_over()? {
                break;
            }
            self.abandoned.pop_front();
        }
        for (request, _) in &mut self.notices {
            request.test()?;
        }
        self.notices.retain(|(request, _)| !request.is_complete());
        while let Some(matched) = fabric.rounds.probe(None, NOTICE_TAG)? {
            let peer = matched.source;
            let mut notice: Box<Notice> = Box::new([0; 2]);
            assert_eq!(matched.bytes, size_of::<Notice>(), "rank {peer} sent a notice");
            // SAFETY: the notice has the room that was checked just now, and lives until the request is
            // complete: below, or leaked.
            let mut request = unsafe { matched.receive(notice.as_mut_ptr().cast())? };
            let mut looks = 0;
            // The message has come (it was matched, and is small enough to travel with its envelope).
            while !request.test()? {
                looks += 1;
                if looks > 1_000_000 {
                    std::mem::forget(notice);
                    return Ok(());
                }
            }
            let [entered, meaning] = *notice;
            self.heard[peer] = self.heard[peer].max(entered);
            match meaning {
                ASK if !self.is_leaving => self.notify(fabric, peer, TELL)?,
                GOODBYE => self.gone[peer] = true,
                _ => {}
            }
        }
        Ok(())
    }

    /// No round will be entered any more: says goodbye to all ranks.
    pub(super) fn leave(&mut self, fabric: &Fabric) -> Result<(), MpiError> {
        for peer in (0..fabric.size).filter(|&peer| peer != fabric.rank) {
            self.notify(fabric, peer, GOODBYE)?;
        }
        self.is_leaving = true;
        self.gone[fabric.rank] = true;
        Ok(())
    }

    /// Whether nothing is under way to this rank any more, so that the communicator can be freed: what came later
    /// would be taken for a message on the communicator that MPI gives its number to next.
    pub(super) fn is_over(&self) -> bool {
        self.is_quiet() && self.gone.iter().all(|&gone| gone)
    }

    fn notify(&mut self, fabric: &Fabric, peer: usize, meaning: u64) -> Result<(), MpiError> {
        if self.notices.len() >= NOTICES_MAX {
            return Ok(());
        }
        let notice: Box<Notice> = Box::new([self.heard[fabric.rank], meaning]);
        // SAFETY: the notice is boxed and kept with its request until that is complete.
        let request =
            unsafe { fabric.rounds.send(notice.as_ptr().cast(), size_of::<Notice>(), peer, NOTICE_TAG)? };
        self.notices.push((request, notice));
        Ok(())
    }
}

impl Drop for Rounds {
    /// Requests that are not complete keep their memory for ever.
    fn drop(&mut self) {
        std::mem::forget(self.current.take());
        self.abandoned.drain(..).filter(|round| !round.is_complete()).for_each(std::mem::forget);
        std::mem::forget(std::mem::take(&mut self.notices));
    }
}
