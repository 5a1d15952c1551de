//! Bytes between the ranks at start-up: rank 0 collects who its peers are and tells them the answer.

use crate::array::Array;
use crate::communicator::{CommError, Communicator, Operation};

/// # Collective
/// Every rank's bytes, in rank order, on `root` only.
pub fn gather_bytes(
    world: &dyn Communicator,
    bytes: &[u8],
    root: usize,
) -> Result<Option<Vec<Vec<u8>>>, CommError> {
    let lengths = world.gather(&Array::scalar(bytes.len() as i64), root)?;
    let joined = world.gather(&Array::from_vec(bytes.to_vec()), root)?;
    let (Some(lengths), Some(joined)) = (lengths, joined) else { return Ok(None) };
    let (Array::I64(lengths), Array::U8(joined)) = (lengths, joined) else {
        return Err(CommError::Broken { reason: "a gather changed the type of its elements".to_owned() });
    };
    let mut joined = joined.iter().copied();
    Ok(Some(lengths.iter().map(|&length| joined.by_ref().take(length as usize).collect()).collect()))
}

/// # Collective
/// The root's bytes, on every rank. What others pass is ignored.
pub fn broadcast_bytes(
    world: &dyn Communicator,
    bytes: Option<&[u8]>,
    root: usize,
) -> Result<Vec<u8>, CommError> {
    let array = bytes.map(|bytes| Array::from_vec(bytes.to_vec()));
    match world.broadcast(array.as_ref(), root)? {
        Array::U8(bytes) => Ok(bytes.iter().copied().collect()),
        other => Err(CommError::Invalid {
            operation: Operation::Broadcast,
            reason: format!("the root sent {} where bytes were expected", other.dtype()),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::solo::Solo;

    #[test]
    fn one_rank_gathers_and_broadcasts_its_own_bytes() {
        let solo = Solo::new();
        assert_eq!(gather_bytes(&solo, b"host", 0), Ok(Some(vec![b"host".to_vec()])));
        assert_eq!(broadcast_bytes(&solo, Some(b"reply"), 0), Ok(b"reply".to_vec()));
        assert_eq!(gather_bytes(&solo, b"", 0), Ok(Some(vec![Vec::new()])));
    }
}
