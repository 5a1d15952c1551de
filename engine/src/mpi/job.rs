//! A collective call as its rank made it: what must agree with the other ranks' calls, and how it reads.

use std::hash::{DefaultHasher, Hash, Hasher};

use protocol::value::DType;

use super::ballot::{Ballot, PAYLOAD_MAX};
use super::memory::Source;
use crate::array::Array;
use crate::communicator::{Operation, ReduceOp};

/// The arguments were checked, and gathered arrays have at least one axis.
#[derive(Clone, Debug)]
pub(super) enum Job {
    Barrier,
    /// The last one: every rank finalizes MPI.
    End,
    Broadcast {
        array: Option<Source>,
        root: usize,
    },
    Reduce {
        array: Source,
        op: ReduceOp,
        root: usize,
    },
    AllReduce {
        array: Source,
        op: ReduceOp,
    },
    Scan {
        array: Source,
        op: ReduceOp,
    },
    Scatter {
        array: Option<Source>,
        root: usize,
    },
    Gather {
        array: Source,
        root: usize,
    },
    AllGather {
        array: Source,
    },
    AllToAll {
        array: Source,
    },
    /// Of user code's own: what follows is an operation on its memory.
    User {
        name: &'static str,
        root: Option<i32>,
    },
}

impl Job {
    pub(super) fn operation(&self) -> Operation {
        match self {
            Job::Barrier | Job::End => Operation::Barrier,
            Job::Broadcast { .. } => Operation::Broadcast,
            Job::Reduce { .. } => Operation::Reduce,
            Job::AllReduce { .. } => Operation::AllReduce,
            Job::Scan { .. } => Operation::Scan,
            Job::Scatter { .. } => Operation::Scatter,
            Job::Gather { .. } => Operation::Gather,
            Job::AllGather { .. } => Operation::AllGather,
            Job::AllToAll { .. } => Operation::AllToAll,
            Job::User { name, .. } => Operation::Mpi(name),
        }
    }

    /// Whether the call's memory is user code's.
    pub(super) fn is_users(&self) -> bool {
        matches!(self, Job::User { .. })
    }

    /// This rank's ballot.
    pub(super) fn ballot(&self, round: u64, rank: usize, cell: i64) -> Ballot {
        let mut ballot = Ballot::new(round, rank, cell, self.signature());
        match self {
            Job::Broadcast { array: Some(array), root } if *root == rank => {
                ballot.set_shape(array.array().dtype(), array.array().shape());
                if array.bytes().len() <= PAYLOAD_MAX {
                    ballot.set_payload(array.bytes());
                }
            }
            Job::Scatter { array: Some(array), root } if *root == rank => {
                ballot.set_shape(array.array().dtype(), array.array().shape());
            }
            Job::Reduce { array, op, .. } | Job::AllReduce { array, op }
                if array.bytes().len() <= PAYLOAD_MAX =>
            {
                ballot.set_operand(*op, array.array().dtype(), array.bytes());
            }
            Job::Gather { array, .. } | Job::AllGather { array } | Job::AllToAll { array } => {
                ballot.set_rows(array.array().shape()[0]);
            }
            _ => {}
        }
        ballot
    }

    /// A digest of what the ranks must agree on. Only roots know what they broadcast or scatter.
    fn signature(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        std::mem::discriminant(self).hash(&mut hasher);
        if let Job::User { name, root } = self {
            (name, root).hash(&mut hasher);
        }
        let (root, op, kind) = match self {
            Job::Barrier | Job::End | Job::User { .. } => (None, None, None),
            Job::Broadcast { root, .. } | Job::Scatter { root, .. } => (Some(*root), None, None),
            Job::Reduce { array, op, root } => (Some(*root), Some(*op), Some(whole(array.array()))),
            Job::AllReduce { array, op } | Job::Scan { array, op } => {
                (None, Some(*op), Some(whole(array.array())))
            }
            Job::Gather { array, root } => (Some(*root), None, Some(row(array.array()))),
            Job::AllGather { array } | Job::AllToAll { array } => (None, None, Some(row(array.array()))),
        };
        (root, op, kind).hash(&mut hasher);
        hasher.finish()
    }

    /// As the user would write it, with what must agree in place of the array.
    pub(super) fn describe(&self) -> String {
        let name = self.operation().name();
        let kind = |array: &Source| {
            let array = array.array();
            let extents: Vec<String> = array.shape().iter().map(usize::to_string).collect();
            if extents.is_empty() {
                array.dtype().to_string()
            } else {
                format!("{}[{}]", array.dtype(), extents.join(", "))
            }
        };
        match self {
            Job::Barrier => "barrier()".to_owned(),
            Job::End => "the end of the engine".to_owned(),
            Job::Broadcast { root, .. } | Job::Scatter { root, .. } => format!("{name}(root {root})"),
            Job::Reduce { array, op, root } => format!("{name}({}, {}, root {root})", kind(array), op.name()),
            Job::AllReduce { array, op } | Job::Scan { array, op } => {
                format!("{name}({}, {})", kind(array), op.name())
            }
            Job::Gather { array, root } => format!("{name}({}, root {root})", kind(array)),
            Job::AllGather { array } | Job::AllToAll { array } => format!("{name}({})", kind(array)),
            Job::User { name, root: None } => (*name).to_owned(),
            Job::User { name, root: Some(root) } => format!("{name}(root {root})"),
        }
    }
}

fn whole(array: &Array) -> (DType, &[usize]) {
    (array.dtype(), array.shape())
}

/// What the rows of gathered arrays must have in common.
fn row(array: &Array) -> (DType, &[usize]) {
    (array.dtype(), &array.shape()[1..])
}

/// The calls of all ranks in rank order, one phrase for each different one.
pub(super) fn phrases(calls: &[String]) -> Vec<String> {
    let mut groups: Vec<(&String, Vec<usize>)> = Vec::new();
    for (rank, call) in calls.iter().enumerate() {
        match groups.iter_mut().find(|(text, _)| *text == call) {
            Some((_, ranks)) => ranks.push(rank),
            None => groups.push((call, vec![rank])),
        }
    }
    groups
        .into_iter()
        .map(|(call, ranks)| format!("{} called {call}", crate::communicator::ranks(&ranks)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(values: &[f64]) -> Source {
        Source::of(&Array::from_vec(values.to_vec()))
    }

    #[test]
    fn calls_are_grouped_by_what_they_say() {
        let calls = ["allreduce(f64[2], sum)", "barrier()", "allreduce(f64[2], sum)"].map(str::to_owned);
        assert_eq!(
            phrases(&calls),
            ["ranks 0 and 2 called allreduce(f64[2], sum)", "rank 1 called barrier()"]
        );
    }

    #[test]
    fn gathered_arrays_may_differ_in_rows_only_and_reduced_ones_in_nothing() {
        let (short, long) = (source(&[1.0]), source(&[1.0, 2.0]));
        let gather = |array: &Source| Job::Gather { array: array.clone(), root: 0 }.signature();
        let scan = |array: &Source| Job::Scan { array: array.clone(), op: ReduceOp::Sum }.signature();
        assert_eq!(gather(&short), gather(&long));
        assert_ne!(scan(&short), scan(&long));
    }

    #[test]
    fn a_call_reads_as_it_was_written() {
        let array = source(&[1.0, 2.0]);
        assert_eq!(
            Job::Reduce { array, op: ReduceOp::Max, root: 1 }.describe(),
            "reduce(f64[2], max, root 1)"
        );
        let array = Source::of(&Array::scalar(1i32));
        assert_eq!(Job::AllReduce { array, op: ReduceOp::Sum }.describe(), "allreduce(i32, sum)");
        assert_eq!(Job::User { name: "MPI_Bcast", root: Some(1) }.describe(), "MPI_Bcast(root 1)");
    }

    #[test]
    fn user_codes_calls_differ_by_name_and_root_only() {
        let signature = |name, root| Job::User { name, root }.signature();
        assert_eq!(signature("MPI_Bcast", Some(1)), signature("MPI_Bcast", Some(1)));
        assert_ne!(signature("MPI_Bcast", Some(1)), signature("MPI_Bcast", Some(2)));
        assert_ne!(signature("MPI_Barrier", None), signature("MPI_Allreduce", None));
        assert_ne!(signature("MPI_Barrier", None), Job::Barrier.signature());
    }
}
