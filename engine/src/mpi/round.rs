//! One attempt of all ranks at one collective: the vote, the commitment, the transfer. See [`super`] for why.

use super::Fabric;
use super::ballot::{Ballot, PAYLOAD_MAX};
use super::calls::{self, MpiError, Request};
use super::job::{Job, phrases};
use super::memory::{reserve, small_array};
use super::transfer::{Exchange, Moved, Movement, Pattern, ReduceTo, Staging, Transfer};
use crate::arguments::part_rows;
use crate::array::Array;

/// Commitments, as ranks say them; the largest decides for all.
const COMMIT: i32 = 0;
const REFUSE: i32 = 1;
const ABANDON: i32 = 2;

/// Bytes of a description: the cell, the length of the text, the text.
const DESCRIPTION: usize = 256;

/// How a round ended, the same for all ranks that saw its end.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    /// The call is done; the result if this rank gets one.
    Done(Option<Array>),
    /// A rank was interrupted, or is in an older cell than this one: make the same call in the next round.
    Again,
    /// These ranks are in a newer cell.
    LeftBehind(Vec<usize>),
    /// The ranks called different things.
    Mismatch(Vec<String>),
    /// This rank or another (`None`) cannot hold the result.
    Refused(Option<String>),
    /// The ranks number their rounds differently; cannot happen unless MPI failed before.
    OutOfStep,
}

/// A round that this rank has entered. Requests point into it (into its boxes and vectors, so that it may be
/// moved): it must not be dropped before it has ended. The world keeps it, and leaks it if it must.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) number: u64,
    pub(super) job: Job,
    cell: i64,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// All ranks say what they call.
    Voting { request: Request, ballots: Box<[Ballot; 2]> },
    /// All have voted; now they say whether they are still there.
    Committing { request: Request, votes: Box<[i32; 2]>, outcome: Box<Ballot>, next: Next },
    /// They are, but called different things: all say what.
    Describing {
        request: Request,
        descriptions: Vec<u8>,
        _mine: Box<[u8; DESCRIPTION]>,
        outcome: Box<Ballot>,
    },
    /// They contribute different numbers of rows: all say how many.
    Counting { request: Request, rows: Vec<u64>, _mine: Box<u64>, outcome: Box<Ballot> },
    /// The operands travel.
    Moving(Box<Transfer>),
    /// The verdict was given.
    Over,
}

/// What follows the commitment.
#[derive(Debug)]
enum Next {
    Describe,
    Count,
    Move(Box<Transfer>),
    Finish(Option<Array>),
    /// This rank said that it refuses, and why.
    Refuse(String),
}

/// The requests of a round that this rank has left before all had entered it.
#[derive(Debug)]
pub(super) struct Abandoned {
    vote: Request,
    commitment: Request,
    _ballots: Box<[Ballot; 2]>,
    _votes: Box<[i32; 2]>,
}

impl Abandoned {
    /// Whether all ranks have entered the round and left it.
    pub(super) fn is_over(&mut self) -> Result<bool, MpiError> {
        Ok(self.vote.test()? & self.commitment.test()?)
    }

    pub(super) fn is_complete(&self) -> bool {
        self.vote.is_complete() && self.commitment.is_complete()
    }
}

impl Round {
    /// Enters a round: casts this rank's ballot.
    pub(super) fn enter(fabric: &Fabric, number: u64, cell: i64, job: Job) -> Result<Round, MpiError> {
        let ballot = job.ballot(number, fabric.rank, cell);
        let mut ballots = Box::new([ballot, ballot]);
        let [mine, all] = &mut *ballots;
        // SAFETY: the ballots are boxed, and live until the request is complete: in this round, which is not
        // dropped before, or in `Abandoned`.
        let request = unsafe { fabric.ballots.cast(&fabric.rounds, mine, all)? };
        Ok(Round { number, job, cell, stage: Stage::Voting { request, ballots } })
    }

    /// Whether some rank has not voted yet, as far as this one knows.
    pub(super) fn is_voting(&self) -> bool {
        matches!(self.stage, Stage::Voting { .. })
    }

    /// A number that grows with every step of the round.
    pub(super) fn steps(&self) -> u64 {
        match &self.stage {
            Stage::Voting { .. } => 0,
            Stage::Committing { .. } => 1,
            Stage::Describing { .. } | Stage::Counting { .. } => 2,
            Stage::Moving(transfer) => 3 + transfer.pieces_moved() as u64,
            Stage::Over => u64::MAX,
        }
    }

    /// Leaves a round that is still voting. The commitment is given now, so that the ranks that come later
    /// learn of it without this one.
    pub(super) fn abandon(self, fabric: &Fabric) -> Result<Abandoned, MpiError> {
        let Stage::Voting { request, ballots } = self.stage else {
            panic!("round {} is left while it is voting, or driven to its end", self.number);
        };
        match say(fabric, ABANDON) {
            Ok((commitment, votes)) => {
                Ok(Abandoned { vote: request, commitment, _ballots: ballots, _votes: votes })
            }
            Err(error) => {
                std::mem::forget(ballots); // The vote still points to them.
                Err(error)
            }
        }
    }

    /// Goes on as far as it can without waiting. `interrupted`: say at the next occasion that this rank wants
    /// to stop; all ranks then stop together.
    pub(super) fn drive(&mut self, fabric: &Fabric, interrupted: bool) -> Result<Option<Verdict>, MpiError> {
        loop {
            if !self.stage_is_over(fabric, interrupted)? {
                return Ok(None);
            }
            match std::mem::replace(&mut self.stage, Stage::Over) {
                Stage::Voting { ballots, .. } => {
                    let outcome = Box::new(ballots[1]);
                    if !outcome.is_of_round(self.number) {
                        return Ok(Some(Verdict::OutOfStep));
                    }
                    let next = self.plan(fabric, &outcome, None);
                    self.commit(fabric, interrupted, outcome, next)?;
                }
                Stage::Committing { votes, outcome, next, .. } => match (votes[1], next) {
                    (REFUSE, Next::Refuse(reason)) => return Ok(Some(Verdict::Refused(Some(reason)))),
                    (REFUSE, _) => return Ok(Some(Verdict::Refused(None))),
                    (COMMIT, Next::Describe) => self.describe(fabric, outcome)?,
                    (COMMIT, Next::Count) => self.count(fabric, outcome)?,
                    (COMMIT, Next::Move(transfer)) => self.stage = Stage::Moving(transfer),
                    (COMMIT, Next::Finish(result)) => return Ok(Some(Verdict::Done(result))),
                    _ => {
                        let newer = outcome.newer_rank(self.cell);
                        return Ok(Some(
                            newer.map_or(Verdict::Again, |rank| Verdict::LeftBehind(vec![rank])),
                        ));
                    }
                },
                Stage::Describing { descriptions, outcome, .. } => {
                    return Ok(Some(self.compare(&descriptions, &outcome)));
                }
                Stage::Counting { rows, outcome, .. } => {
                    let next = self.plan(fabric, &outcome, Some(&rows));
                    self.commit(fabric, interrupted, outcome, next)?;
                }
                Stage::Moving(transfer) => return Ok(Some(Verdict::Done(transfer.into_result()))),
                Stage::Over => return Ok(Some(Verdict::Again)),
            }
        }
    }

    /// Whether what the stage waits for has happened.
    fn stage_is_over(&mut self, fabric: &Fabric, interrupted: bool) -> Result<bool, MpiError> {
        match &mut self.stage {
            Stage::Voting { request, .. }
            | Stage::Committing { request, .. }
            | Stage::Describing { request, .. }
            | Stage::Counting { request, .. } => request.test(),
            Stage::Moving(transfer) => Ok(match transfer.drive(fabric, interrupted)? {
                None => false,
                Some(Moved::Complete) => true,
                Some(Moved::Stopped) => {
                    self.stage = Stage::Over;
                    true
                }
            }),
            Stage::Over => Ok(true),
        }
    }

    fn commit(
        &mut self,
        fabric: &Fabric,
        interrupted: bool,
        outcome: Box<Ballot>,
        next: Next,
    ) -> Result<(), MpiError> {
        let word = match &next {
            _ if interrupted => ABANDON,
            Next::Refuse(_) => REFUSE,
            _ => COMMIT,
        };
        let (request, votes) = say(fabric, word)?;
        self.stage = Stage::Committing { request, votes, outcome, next };
        Ok(())
    }

    fn describe(&mut self, fabric: &Fabric, outcome: Box<Ballot>) -> Result<(), MpiError> {
        let mut mine = Box::new([0u8; DESCRIPTION]);
        let text = self.job.describe();
        let length = text.len().min(DESCRIPTION - 16);
        mine[..8].copy_from_slice(&self.cell.to_le_bytes());
        mine[8..16].copy_from_slice(&(length as u64).to_le_bytes());
        mine[16..16 + length].copy_from_slice(&text.as_bytes()[..length]);
        let mut descriptions = vec![0u8; DESCRIPTION * fabric.size];
        // SAFETY: both buffers are on the heap and move into the stage, which lives until the request is
        // complete.
        let request =
            unsafe { fabric.rounds.all_gather(mine.as_ptr(), descriptions.as_mut_ptr(), DESCRIPTION)? };
        self.stage = Stage::Describing { request, descriptions, _mine: mine, outcome };
        Ok(())
    }

    fn count(&mut self, fabric: &Fabric, outcome: Box<Ballot>) -> Result<(), MpiError> {
        let mine = match &self.job {
            Job::Gather { array, .. } | Job::AllGather { array } | Job::AllToAll { array } => {
                array.array().shape()[0] as u64
            }
            _ => 0,
        };
        let mine = Box::new(mine);
        let mut rows = vec![0u64; fabric.size];
        // SAFETY: both buffers are on the heap and move into the stage, which lives until the request is
        // complete; 8 bytes are one number.
        let request = unsafe {
            fabric.rounds.all_gather((&raw const *mine).cast(), rows.as_mut_ptr().cast(), size_of::<u64>())?
        };
        self.stage = Stage::Counting { request, rows, _mine: mine, outcome };
        Ok(())
    }

    fn compare(&self, descriptions: &[u8], outcome: &Ballot) -> Verdict {
        let (mut cells, mut calls) = (Vec::new(), Vec::new());
        for description in descriptions.as_chunks::<DESCRIPTION>().0 {
            let (words, text) = description.split_at(16);
            let [cell, length] = words.as_chunks::<8>().0 else { unreachable!("16 bytes are two words") };
            let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(0).min(text.len());
            cells.push(i64::from_le_bytes(*cell));
            calls.push(String::from_utf8_lossy(&text[..length]).into_owned());
        }
        if !outcome.cells_differ() {
            return Verdict::Mismatch(phrases(&calls));
        }
        let peers: Vec<usize> =
            cells.iter().enumerate().filter(|(_, cell)| **cell > self.cell).map(|(rank, _)| rank).collect();
        if peers.is_empty() { Verdict::Again } else { Verdict::LeftBehind(peers) }
    }

    /// What is to be done once all have committed themselves; what memory it needs is taken here, while the
    /// call can still be refused. Every rank comes to the same plan: it follows from what all know.
    fn plan(&self, fabric: &Fabric, outcome: &Ballot, rows: Option<&[u64]>) -> Next {
        if !outcome.is_unanimous() {
            return Next::Describe;
        }
        match self.plan_movement(fabric, outcome, rows) {
            Ok(next) => next,
            Err(reason) => Next::Refuse(reason),
        }
    }

    fn plan_movement(&self, fabric: &Fabric, outcome: &Ballot, rows: Option<&[u64]>) -> Result<Next, String> {
        let start = |movement, result| Ok(Next::Move(Box::new(Transfer::new(movement, result, fabric))));
        match &self.job {
            Job::Barrier | Job::End | Job::User { .. } => Ok(Next::Finish(None)),
            Job::Broadcast { array, root } => {
                let (dtype, shape) = outcome.shape().ok_or("the root said nothing of its array")?;
                let source = array.as_ref().filter(|_| *root == fabric.rank);
                let bytes = shape.iter().product::<usize>() * dtype.size();
                if bytes <= PAYLOAD_MAX {
                    return Ok(Next::Finish(match source {
                        Some(source) => Some(source.array().clone()),
                        None => Some(received(outcome, dtype, &shape)?),
                    }));
                }
                let result = if source.is_some() { None } else { Some((reserve(dtype, &shape)?, shape)) };
                start(Movement::Broadcast { source: source.cloned(), bytes, root: *root }, result)
            }
            Job::Reduce { array, op, root } => {
                let is_root = *root == fabric.rank;
                let (dtype, shape) = (array.array().dtype(), array.array().shape());
                if array.bytes().len() <= PAYLOAD_MAX {
                    let result = if is_root { Some(received(outcome, dtype, shape)?) } else { None };
                    return Ok(Next::Finish(result));
                }
                let result = if is_root { Some((reserve(dtype, shape)?, shape.to_vec())) } else { None };
                start(Movement::Reduce { source: array.clone(), op: *op, to: ReduceTo::Root(*root) }, result)
            }
            Job::AllReduce { array, op } => {
                let (dtype, shape) = (array.array().dtype(), array.array().shape());
                if array.bytes().len() <= PAYLOAD_MAX {
                    return Ok(Next::Finish(Some(received(outcome, dtype, shape)?)));
                }
                let result = Some((reserve(dtype, shape)?, shape.to_vec()));
                start(Movement::Reduce { source: array.clone(), op: *op, to: ReduceTo::All }, result)
            }
            Job::Scan { array, op } => {
                let (dtype, shape) = (array.array().dtype(), array.array().shape());
                let result = Some((reserve(dtype, shape)?, shape.to_vec()));
                start(Movement::Reduce { source: array.clone(), op: *op, to: ReduceTo::Prefix }, result)
            }
            Job::Scatter { array, root } => {
                let (dtype, shape) = outcome.shape().ok_or("the root said nothing of its array")?;
                let (rows, row) = shape.split_first().map_or((1, &[][..]), |(rows, row)| (*rows, row));
                let row_bytes = row.iter().product::<usize>() * dtype.size();
                let parts: Vec<usize> = (0..fabric.size).map(|r| part_rows(rows, fabric.size, r)).collect();
                let mut shape = vec![parts[fabric.rank]];
                shape.extend_from_slice(row);
                let result = Some((reserve(dtype, &shape)?, shape));
                let outgoing: Vec<usize> = parts.iter().map(|rows| rows * row_bytes).collect();
                let exchange = Exchange {
                    pattern: Pattern::Scatter { root: *root },
                    source: array.as_ref().filter(|_| *root == fabric.rank).cloned(),
                    incoming: vec![outgoing[fabric.rank]],
                    longest: outgoing[0],
                    outgoing,
                    staging: Staging::default(),
                };
                start(Movement::Exchange(exchange), result)
            }
            Job::Gather { array, .. } | Job::AllGather { array } | Job::AllToAll { array } => {
                let counts: Vec<usize> = match (rows, outcome.common_rows()) {
                    (Some(rows), _) => rows.iter().map(|&rows| rows as usize).collect(),
                    (None, Some(rows)) => vec![rows; fabric.size],
                    (None, None) => return Ok(Next::Count),
                };
                let (dtype, row) = (array.array().dtype(), &array.array().shape()[1..]);
                let row_bytes = row.iter().product::<usize>() * dtype.size();
                let part = |from: usize, to: usize| part_rows(counts[from], fabric.size, to);
                let all = 0..fabric.size;
                let (pattern, outgoing, incoming): (_, Vec<usize>, Vec<usize>) = match &self.job {
                    Job::AllToAll { .. } => (
                        Pattern::AllToAll,
                        all.clone().map(|to| part(fabric.rank, to)).collect(),
                        all.map(|from| part(from, fabric.rank)).collect(),
                    ),
                    Job::Gather { root, .. } => {
                        (Pattern::Gather { root: *root }, vec![counts[fabric.rank]], counts.clone())
                    }
                    _ => (Pattern::AllGather, vec![counts[fabric.rank]], counts.clone()),
                };
                let longest = counts.iter().max().copied().unwrap_or(0);
                let longest = match pattern {
                    Pattern::AllToAll => part_rows(longest, fabric.size, 0),
                    _ => longest,
                };
                let receives = !matches!(&self.job, Job::Gather { root, .. } if *root != fabric.rank);
                let mut shape = vec![incoming.iter().fold(0, |sum: usize, rows| sum.saturating_add(*rows))];
                shape.extend_from_slice(row);
                let result = if receives { Some((reserve(dtype, &shape)?, shape)) } else { None };
                let bytes = |rows: Vec<usize>| rows.into_iter().map(|rows| rows * row_bytes).collect();
                let exchange = Exchange {
                    pattern,
                    source: Some(array.clone()),
                    outgoing: bytes(outgoing),
                    incoming: bytes(incoming),
                    longest: longest * row_bytes,
                    staging: Staging::default(),
                };
                start(Movement::Exchange(exchange), result)
            }
        }
    }
}

/// The small array that came with the votes.
fn received(outcome: &Ballot, dtype: protocol::value::DType, shape: &[usize]) -> Result<Array, String> {
    small_array(dtype, shape, outcome.payload()).ok_or_else(|| "the vote lost its operand".to_owned())
}

/// Gives this rank's commitment.
fn say(fabric: &Fabric, word: i32) -> Result<(Request, Box<[i32; 2]>), MpiError> {
    let mut votes = Box::new([word, COMMIT]);
    let [mine, all] = &mut *votes;
    // SAFETY: the votes are boxed and go with the request, which whoever gets them keeps until it is complete.
    let request = unsafe { calls::all_reduce_max(&fabric.rounds, mine, all)? };
    Ok((request, votes))
}
