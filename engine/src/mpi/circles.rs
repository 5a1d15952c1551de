//! The communicators that have rounds: the world's own, and one for each communicator of user code.
//!
//! The rounds of a circle are on a hidden communicator of the same ranks, so that nothing is matched with what user
//! code posts on its own.

use std::ops::{Index, IndexMut};
use std::sync::Mutex;

use super::Fabric;
use super::calls::MpiError;
use super::job::Job;
use super::round::Verdict;
use super::rounds::Rounds;

/// A circle's place in the table; what user communicators carry as their attribute.
pub(super) type CircleId = usize;

/// The world's own circle, in which user code's calls on `MPI_COMM_WORLD` are too: then a rank that calls `psum` and
/// one that calls `MPI_Barrier` are told of each other.
pub(super) const OWN: CircleId = 0;

/// Circles whose user communicator was freed; MPI says so in the middle of whatever call, hence the queue. It is as
/// long as MPI had communicators at once, at most.
static FREED: Mutex<Vec<CircleId>> = Mutex::new(Vec::new());

/// The ranks of one communicator, and their rounds.
#[derive(Debug)]
pub(super) struct Circle {
    pub(super) fabric: Fabric,
    pub(super) rounds: Rounds,
}

impl Circle {
    pub(super) fn new(fabric: Fabric) -> Circle {
        let rounds = Rounds::new(fabric.size);
        Circle { fabric, rounds }
    }

    pub(super) fn enter(&mut self, cell: i64, job: Job) -> Result<(), MpiError> {
        self.rounds.enter(&self.fabric, cell, job)
    }

    pub(super) fn drive(&mut self, interrupted: bool) -> Result<Option<Verdict>, MpiError> {
        self.rounds.drive(&self.fabric, interrupted)
    }

    pub(super) fn abandon(&mut self) -> Result<u64, MpiError> {
        self.rounds.abandon(&self.fabric)
    }

    fn tidy(&mut self) -> Result<(), MpiError> {
        self.rounds.tidy(&self.fabric)
    }
}

/// All circles of this process; as many as it has communicators, which MPI limits.
#[derive(Debug)]
pub(super) struct Circles {
    /// The first one is the world's own.
    table: Vec<Option<Circle>>,
    /// Of communicators that were freed, while rounds that were left wait in them for ranks.
    retired: Vec<Circle>,
    /// Whose peers are served next while this rank waits in another circle.
    turn: CircleId,
}

impl Circles {
    pub(super) fn new(own: Circle) -> Circles {
        Circles { table: vec![Some(own)], retired: Vec::new(), turn: OWN }
    }

    pub(super) fn add(&mut self, circle: Circle) -> CircleId {
        match self.table.iter().position(Option::is_none) {
            Some(free) => {
                self.table[free] = Some(circle);
                free
            }
            None => {
                self.table.push(Some(circle));
                self.table.len() - 1
            }
        }
    }

    pub(super) fn ids(&self) -> Vec<CircleId> {
        let taken = self.table.iter().enumerate().filter(|(_, circle)| circle.is_some());
        taken.map(|(id, _)| id).collect()
    }

    /// Whether some rank may wait for a round of this one.
    pub(super) fn is_any_busy(&self) -> bool {
        self.table.iter().flatten().any(|circle| circle.rounds.is_busy())
    }

    /// Forgets what is complete and answers notices: in this circle, and in turn in one other, so that a wait takes as
    /// long as it does with few communicators.
    pub(super) fn tidy_some(&mut self, at: CircleId) -> Result<(), MpiError> {
        self[at].tidy()?;
        self.turn = (self.turn + 1) % self.table.len();
        match &mut self.table[self.turn] {
            Some(circle) if self.turn != at => circle.tidy(),
            _ => Ok(()),
        }
    }

    /// Frees the communicators of circles that user code needs no more and nobody waits in.
    pub(super) fn retire(&mut self) -> Result<(), MpiError> {
        let freed = std::mem::take(&mut *FREED.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        for id in freed.into_iter().filter(|&id| id != OWN) {
            if let Some(mut circle) = self.table.get_mut(id).and_then(Option::take) {
                circle.rounds.leave(&circle.fabric)?;
                self.retired.push(circle);
            }
        }
        for mut circle in std::mem::take(&mut self.retired) {
            circle.tidy()?;
            if circle.rounds.is_over() {
                circle.fabric.rounds.free()?;
            } else {
                self.retired.push(circle);
            }
        }
        Ok(())
    }

    pub(super) fn into_own(self) -> Circle {
        self.table.into_iter().next().flatten().expect("the world's own circle is never retired")
    }
}

/// User code has freed a communicator that had this circle.
pub(super) fn freed(id: CircleId) {
    FREED.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(id);
}

impl Index<CircleId> for Circles {
    type Output = Circle;

    fn index(&self, id: CircleId) -> &Circle {
        self.table[id].as_ref().expect("a communicator that is in use keeps its circle")
    }
}

impl IndexMut<CircleId> for Circles {
    fn index_mut(&mut self, id: CircleId) -> &mut Circle {
        self.table[id].as_mut().expect("a communicator that is in use keeps its circle")
    }
}
