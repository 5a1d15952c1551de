//! What user code can ask of the other ranks: the collectives and point-to-point calls of an engine.
//!
//! [`crate::mpi`] implements it over MPI; [`Solo`](crate::solo::Solo) is a world of one rank without MPI. Errors are values; an
//! interrupt ends any wait.

use std::fmt;

use protocol::value::DType;

use crate::array::Array;

/// A reduction (MPI 3.1, section 5.9.2). Elementwise, as in MPI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReduceOp {
    /// `MPI_SUM`. Bytes that overflow may wrap or stop at 255, as the MPI library likes: widen them first.
    Sum,
    /// `MPI_PROD`.
    Prod,
    /// `MPI_MIN`; not for complex numbers.
    Min,
    /// `MPI_MAX`; not for complex numbers.
    Max,
    /// `MPI_LAND`; for bool.
    And,
    /// `MPI_LOR`; for bool.
    Or,
}

impl ReduceOp {
    /// All of them.
    pub const ALL: [ReduceOp; 6] =
        [ReduceOp::Sum, ReduceOp::Prod, ReduceOp::Min, ReduceOp::Max, ReduceOp::And, ReduceOp::Or];

    /// The name at the prompt.
    pub fn name(self) -> &'static str {
        match self {
            ReduceOp::Sum => "sum",
            ReduceOp::Prod => "prod",
            ReduceOp::Min => "min",
            ReduceOp::Max => "max",
            ReduceOp::And => "and",
            ReduceOp::Or => "or",
        }
    }

    /// The operation of that name.
    pub fn from_name(name: &str) -> Option<ReduceOp> {
        ReduceOp::ALL.into_iter().find(|op| op.name() == name)
    }

    /// Whether MPI defines it for elements of this type (MPI 3.1, table 5.2); for bool, sum and prod are not
    /// defined, min and max are read as and/or.
    pub fn is_defined_for(self, dtype: DType) -> bool {
        match self {
            ReduceOp::Sum | ReduceOp::Prod => dtype != DType::Bool,
            ReduceOp::Min | ReduceOp::Max => dtype != DType::C64,
            ReduceOp::And | ReduceOp::Or => dtype == DType::Bool,
        }
    }
}

/// Which call an error speaks of, as the user wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// `barrier()`
    Barrier,
    /// `bcast(x, root)`
    Broadcast,
    /// `reduce(x, op, root)`
    Reduce,
    /// `allreduce(x, op)`, and the `psum` family
    AllReduce,
    /// `scan(x, op)`
    Scan,
    /// `scatter(x, root)`
    Scatter,
    /// `gather(x, root)`
    Gather,
    /// `allgather(x)`
    AllGather,
    /// `alltoall(x)`
    AllToAll,
    /// `send(x, to)`
    Send,
    /// `recv(from)`
    Receive,
    /// A call of MPI that user code makes itself; the name is MPI's.
    Mpi(&'static str),
}

impl Operation {
    /// The name at the prompt.
    pub fn name(self) -> &'static str {
        match self {
            Operation::Barrier => "barrier",
            Operation::Broadcast => "bcast",
            Operation::Reduce => "reduce",
            Operation::AllReduce => "allreduce",
            Operation::Scan => "scan",
            Operation::Scatter => "scatter",
            Operation::Gather => "gather",
            Operation::AllGather => "allgather",
            Operation::AllToAll => "alltoall",
            Operation::Send => "send",
            Operation::Receive => "recv",
            Operation::Mpi(name) => name,
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a call to other ranks failed. The world stays usable after every one of them but `Broken`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommError {
    /// The user interrupted the wait.
    #[error("{operation} was interrupted while {}", whom(.missing))]
    Interrupted {
        /// The call.
        operation: Operation,
        /// The ranks that had not entered it, in order; empty when all had.
        missing: Vec<usize>,
    },
    /// The ranks called different things.
    #[error("the ranks disagree: {}", .calls.join("; "))]
    Mismatch {
        /// What each group of ranks called, one phrase each: `ranks 0 and 2 called allreduce(f64[100], sum)`.
        calls: Vec<String>,
    },
    /// Peers finished the cell that this rank is in, with fewer collectives.
    #[error("{operation}: {} finished this cell without calling it", ranks(.peers))]
    LeftBehind {
        /// The call.
        operation: Operation,
        /// The ranks that moved on, if they are known.
        peers: Vec<usize>,
    },
    /// An argument is wrong; the same on every rank or found before anything was sent.
    #[error("{operation}: {reason}")]
    Invalid {
        /// The call.
        operation: Operation,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// MPI returned an error.
    #[error("{operation}: MPI error {code}: {text}")]
    Mpi {
        /// The call.
        operation: Operation,
        /// The code that MPI returned.
        code: i32,
        /// MPI's own words for it.
        text: String,
    },
    /// The world cannot be used any more.
    #[error("the MPI world is broken: {reason}")]
    Broken {
        /// What broke it.
        reason: String,
    },
}

impl CommError {
    /// The error's name at the prompt; Python's where Python has one.
    pub fn ename(&self) -> &'static str {
        match self {
            CommError::Interrupted { .. } => "KeyboardInterrupt",
            CommError::Mismatch { .. } | CommError::LeftBehind { .. } => "CollectiveError",
            CommError::Invalid { .. } => "ValueError",
            CommError::Mpi { .. } | CommError::Broken { .. } => "MPIError",
        }
    }
}

/// What an interrupted call waited for.
fn whom(missing: &[usize]) -> String {
    if missing.is_empty() {
        "all ranks were in it".to_owned()
    } else {
        format!("it waited for {}", ranks(missing))
    }
}

/// `rank 3`, `ranks 1 and 3`, `ranks 0, 1 and 3`, `no rank`.
pub fn ranks(list: &[usize]) -> String {
    match list {
        [] => "no rank".to_owned(),
        [one] => format!("rank {one}"),
        [head @ .., last] => {
            let head: Vec<String> = head.iter().map(usize::to_string).collect();
            format!("ranks {} and {last}", head.join(", "))
        }
    }
}

/// Where a rank waits, for status queries from the control thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The call.
    pub operation: Operation,
    /// How many collectives this rank has entered, this one included.
    pub round: u64,
    /// Since when, in microseconds since 1970.
    pub since_us: u64,
}

/// The calls that user code makes to the other ranks of its world. All collectives must be entered by every
/// rank; a rank that does not is waited for until an interrupt.
pub trait Communicator {
    /// This process' number in the world, from 0.
    fn rank(&self) -> usize;

    /// How many ranks the world has.
    fn size(&self) -> usize;

    /// The world as Fortran's handle (MPI 3.1, section 17.2.4), for compiled code; none without MPI.
    fn fortran_handle(&self) -> Option<i32> {
        None
    }

    /// A cell begins. `cell` orders the cells that all ranks run (0: unknown); a rank that still waits in an
    /// older cell than its peers gets [`CommError::LeftBehind`].
    fn enter_cell(&self, cell: i64);

    /// How many collectives this rank has completed since it started.
    fn completed(&self) -> u64;

    /// # Collective
    /// Returns once every rank has called it.
    fn barrier(&self) -> Result<(), CommError>;

    /// # Collective
    /// The root's array, on every rank. Other ranks pass `None`; what they pass is ignored.
    fn broadcast(&self, array: Option<&Array>, root: usize) -> Result<Array, CommError>;

    /// # Collective
    /// The elementwise reduction, on `root` only. Shapes and types must agree.
    fn reduce(&self, array: &Array, op: ReduceOp, root: usize) -> Result<Option<Array>, CommError>;

    /// # Collective
    /// The elementwise reduction, on every rank. Shapes and types must agree.
    fn all_reduce(&self, array: &Array, op: ReduceOp) -> Result<Array, CommError>;

    /// # Collective
    /// The inclusive prefix reduction: rank r gets the reduction of ranks 0 to r.
    fn scan(&self, array: &Array, op: ReduceOp) -> Result<Array, CommError>;

    /// # Collective
    /// Splits the root's array along its first axis; the first `n mod size` ranks get one row more.
    fn scatter(&self, array: Option<&Array>, root: usize) -> Result<Array, CommError>;

    /// # Collective
    /// Joins the ranks' arrays along the first axis, in rank order, on `root` only. A 0-dimensional array
    /// counts as one element; lengths of the first axis may differ, other extents and types must agree.
    fn gather(&self, array: &Array, root: usize) -> Result<Option<Array>, CommError>;

    /// # Collective
    /// As [`Communicator::gather`], on every rank.
    fn all_gather(&self, array: &Array) -> Result<Array, CommError>;

    /// # Collective
    /// Splits each rank's array along the first axis as [`Communicator::scatter`] does; part r goes to rank r,
    /// and what came is joined in rank order.
    fn all_to_all(&self, array: &Array) -> Result<Array, CommError>;

    /// Sends an array to one rank. Returns once the memory may be changed.
    fn send(&self, array: &Array, to: usize, tag: i32) -> Result<(), CommError>;

    /// Waits for an array from one rank (`None`: from any), and says from which.
    fn receive(&self, from: Option<usize>, tag: i32) -> Result<(Array, usize), CommError>;
}

#[cfg(test)]
mod tests {
    use super::{CommError, Operation};

    #[test]
    fn an_interrupt_says_whom_the_call_waited_for() {
        let message = |missing: &[usize]| {
            CommError::Interrupted { operation: Operation::Barrier, missing: missing.to_vec() }.to_string()
        };
        assert_eq!(message(&[]), "barrier was interrupted while all ranks were in it");
        assert_eq!(message(&[2]), "barrier was interrupted while it waited for rank 2");
        assert_eq!(message(&[0, 1, 3]), "barrier was interrupted while it waited for ranks 0, 1 and 3");
    }
}
