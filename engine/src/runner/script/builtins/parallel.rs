//! Builtins that talk to the other ranks.
//!
//! Numbers and arrays go as they are. Anything else (strings, lists, maps, …) is written as bytes behind
//! [`MARK`], which says so to the rank that receives it.

use bytes::Bytes;
use num_complex::Complex64;
use protocol::value::{DType, Value};
use rhai::Dynamic;

use crate::array::Array;
use crate::communicator::{Communicator, Operation, ReduceOp};

use super::super::arrays::cast::cast;
use super::super::arrays::reduce::{Reduction, reduce};
use super::super::arrays::{Scalar, only_element, shaped};
use super::super::convert::{List, from_array, from_value, operand, to_array, to_value};
use super::super::raised::{Outcome, type_error, value_error};
use super::{Builtin, Call, Category};

const PARALLEL: Category = Category::Parallel;

/// Begins bytes that are a value. An array that happens to begin so is sent as a value itself.
const MARK: &[u8; 16] = b"\0commworld/value";

#[rustfmt::skip]
pub(super) const TABLE: &[Builtin] = &[
    Builtin { name: "rank", signature: "rank()", summary: "this engine's number in the world, from 0", details: "", category: PARALLEL, arity: (0, 0), run: |call| Ok(Dynamic::from(call.session.communicator()?.rank() as i64)) },
    Builtin { name: "size", signature: "size()", summary: "how many ranks the world has", details: "", category: PARALLEL, arity: (0, 0), run: |call| Ok(Dynamic::from(call.session.communicator()?.size() as i64)) },
    Builtin { name: "psum", signature: "psum(a)", summary: "the sum of all elements on all ranks, as one number", details: "Collective: every rank must call it. Integers stay integers. An empty local array adds nothing.", category: PARALLEL, arity: (1, 1), run: |call| all_elements(call, Reduction::Sum, ReduceOp::Sum) },
    Builtin { name: "pprod", signature: "pprod(a)", summary: "the product of all elements on all ranks", details: "Collective.", category: PARALLEL, arity: (1, 1), run: |call| all_elements(call, Reduction::Product, ReduceOp::Prod) },
    Builtin { name: "pmin", signature: "pmin(a)", summary: "the smallest element on all ranks", details: "Collective. Ranks with an empty array do not count; if all are empty, floats give inf and integers an error.", category: PARALLEL, arity: (1, 1), run: |call| all_elements(call, Reduction::Minimum, ReduceOp::Min) },
    Builtin { name: "pmax", signature: "pmax(a)", summary: "the largest element on all ranks", details: "Collective. As `pmin`.", category: PARALLEL, arity: (1, 1), run: |call| all_elements(call, Reduction::Maximum, ReduceOp::Max) },
    Builtin { name: "pmean", signature: "pmean(a)", summary: "the mean of all elements on all ranks", details: "Collective. Every element has the same weight, however many a rank has.", category: PARALLEL, arity: (1, 1), run: mean },
    Builtin { name: "allreduce", signature: "allreduce(x, op)", summary: "the elementwise reduction, on every rank", details: "Collective. `op` is \"sum\", \"prod\", \"min\" or \"max\", and \"and\" or \"or\" for truth values; shapes and types must agree. `allreduce(x)` sums.", category: PARALLEL, arity: (1, 2), run: all_reduce },
    Builtin { name: "reduce", signature: "reduce(x, op, root)", summary: "the elementwise reduction, on one rank", details: "Collective. The others get `()`. Root is 0 if not given.", category: PARALLEL, arity: (1, 3), run: reduce_to_root },
    Builtin { name: "scan", signature: "scan(x, op)", summary: "the reduction of ranks 0 to this one", details: "Collective (MPI_Scan).", category: PARALLEL, arity: (1, 2), run: |call| { let op = op_at(call, 1)?; let x = numbers(call, Operation::Scan, op)?; Ok(from_array(call.session.communicator()?.scan(&x, op)?)) } },
    Builtin { name: "bcast", signature: "bcast(x, root)", summary: "the root's value, on every rank", details: "Collective. Any value; what the others pass is ignored. Root is 0 if not given.", category: PARALLEL, arity: (1, 2), run: broadcast },
    Builtin { name: "scatter", signature: "scatter(x, root)", summary: "a part of the root's array or list, on every rank", details: "Collective. Along the first axis; the first `len(x) % size()` ranks get one row more. What the others pass is ignored.", category: PARALLEL, arity: (1, 2), run: scatter },
    Builtin { name: "gather", signature: "gather(x, root)", summary: "all ranks' values joined, on one rank", details: "Collective. Arrays are joined along the first axis, numbers become an array, other values a list. The others get `()`.", category: PARALLEL, arity: (1, 2), run: |call| { let x = packed(call.value(0)?)?; let gathered = call.session.communicator()?.gather(&x, root_at(call, 1)?)?; gathered.map_or(Ok(Dynamic::UNIT), unpacked_all) } },
    Builtin { name: "allgather", signature: "allgather(x)", summary: "all ranks' values joined, on every rank", details: "Collective. As `gather`.", category: PARALLEL, arity: (1, 1), run: |call| { let x = packed(call.value(0)?)?; unpacked_all(call.session.communicator()?.all_gather(&x)?) } },
    Builtin { name: "alltoall", signature: "alltoall(x)", summary: "part r of every rank's array goes to rank r", details: "Collective. Split as by `scatter`; what came is joined in rank order.", category: PARALLEL, arity: (1, 1), run: |call| Ok(Dynamic::from(call.session.communicator()?.all_to_all(&call.array(0)?)?)) },
    Builtin { name: "barrier", signature: "barrier()", summary: "waits until every rank has called it", details: "Collective.", category: PARALLEL, arity: (0, 0), run: |call| { call.session.communicator()?.barrier()?; Ok(Dynamic::UNIT) } },
    Builtin { name: "send", signature: "send(x, to[, tag])", summary: "sends any value to one rank", details: "Returns once the value may be changed; the other rank calls `recv`.", category: PARALLEL, arity: (2, 3), run: send },
    Builtin { name: "recv", signature: "recv(from[, tag])", summary: "waits for a value from one rank", details: "`recv(())` takes from any rank.", category: PARALLEL, arity: (1, 2), run: receive },
];

fn rank_at(call: &Call<'_, '_>, at: usize) -> Outcome<usize> {
    let size = call.session.communicator()?.size();
    let rank = call.int(at)?;
    match usize::try_from(rank) {
        Ok(rank) if rank < size => Ok(rank),
        _ => Err(value_error(format!(
            "{}: rank {rank} does not exist; ranks are 0 to {}",
            call.name,
            size - 1
        ))),
    }
}

fn root_at(call: &Call<'_, '_>, at: usize) -> Outcome<usize> {
    if call.argument(at).is_some() { rank_at(call, at) } else { Ok(0) }
}

fn tag_at(call: &Call<'_, '_>, at: usize) -> Outcome<i32> {
    if call.argument(at).is_none() {
        return Ok(0);
    }
    let tag = call.int(at)?;
    match i32::try_from(tag) {
        // MPI 3.1, section 8.1.2: every MPI has tags up to 32767.
        Ok(tag) if (0..=32767).contains(&tag) => Ok(tag),
        _ => Err(value_error(format!("{}: tag {tag} is not from 0 to 32767", call.name))),
    }
}

fn op_at(call: &Call<'_, '_>, at: usize) -> Outcome<ReduceOp> {
    if call.argument(at).is_none() {
        return Ok(ReduceOp::Sum);
    }
    let name = call.text(at)?;
    ReduceOp::from_name(&name).ok_or_else(|| {
        let names: Vec<&str> = ReduceOp::ALL.into_iter().map(ReduceOp::name).collect();
        value_error(format!("{}: `{name}` is not a reduction; choose from {}", call.name, names.join(", ")))
    })
}

/// The first argument as numbers that MPI can reduce so.
fn numbers(call: &Call<'_, '_>, operation: Operation, op: ReduceOp) -> Outcome<Array> {
    let array = call.array(0)?;
    if op.is_defined_for(array.dtype()) {
        return Ok(array);
    }
    let instead = match (op, array.dtype()) {
        (ReduceOp::Sum | ReduceOp::Prod, _) => "convert first: `i64(x)`",
        (ReduceOp::And | ReduceOp::Or, _) => "compare first: `x != 0`",
        _ => "complex numbers have no order; use `abs(x)`",
    };
    Err(type_error(format!("{operation}: \"{}\" is not defined for {}; {instead}", op.name(), array.dtype())))
}

fn all_reduce(call: &Call<'_, '_>) -> Outcome<Dynamic> {
    let op = op_at(call, 1)?;
    let x = numbers(call, Operation::AllReduce, op)?;
    Ok(from_array(call.session.communicator()?.all_reduce(&x, op)?))
}

fn reduce_to_root(call: &Call<'_, '_>) -> Outcome<Dynamic> {
    let op = op_at(call, 1)?;
    let x = numbers(call, Operation::Reduce, op)?;
    let reduced = call.session.communicator()?.reduce(&x, op, root_at(call, 2)?)?;
    Ok(reduced.map_or(Dynamic::UNIT, from_array))
}

/// A local reduction, then one reduction of a number over all ranks. Narrow types go as i64 and f64, so that
/// ranks agree also when their arrays differ in width.
fn all_elements(call: &Call<'_, '_>, local: Reduction, global: ReduceOp) -> Outcome<Dynamic> {
    let array = call.array(0)?;
    let dtype = match array.dtype() {
        DType::F64 | DType::F32 => DType::F64,
        DType::C64 => DType::C64,
        DType::Bool | DType::U8 | DType::I32 | DType::I64 => DType::I64,
    };
    let ordered = matches!(local, Reduction::Minimum | Reduction::Maximum);
    if ordered && dtype == DType::C64 {
        return Err(type_error(format!("{}: complex numbers have no order; use `abs(x)`", call.name)));
    }
    let nothing = match (local, dtype) {
        (Reduction::Minimum, DType::I64) => Scalar::Int(i64::MAX),
        (Reduction::Maximum, DType::I64) => Scalar::Int(i64::MIN),
        (Reduction::Minimum, _) => Scalar::Float(f64::INFINITY),
        _ => Scalar::Float(f64::NEG_INFINITY),
    };
    let part = if ordered && array.is_empty() {
        nothing.to_array()
    } else {
        cast(&reduce(&cast(&array, dtype)?, local, None)?, dtype)?
    };
    let whole = call.session.communicator()?.all_reduce(&part, global)?;
    if ordered && dtype == DType::I64 && only_element(&whole) == Some(nothing) {
        // The same on every rank, so that all of them leave the call alike.
        return Err(value_error(format!("{} of arrays that are empty on every rank", call.name)));
    }
    Ok(from_array(whole))
}

fn mean(call: &Call<'_, '_>) -> Outcome<Dynamic> {
    let array = call.array(0)?;
    let communicator = call.session.communicator()?;
    let count = array.len() as f64;
    let none = || value_error("pmean of arrays that are empty on every rank");
    if array.dtype() == DType::C64 {
        let Some(Scalar::Complex(sum)) = only_element(&reduce(&array, Reduction::Sum, None)?) else {
            return Err(value_error("pmean of no number"));
        };
        let parts = Array::from_vec(vec![sum, Complex64::new(count, 0.0)]);
        let Array::C64(whole) = communicator.all_reduce(&parts, ReduceOp::Sum)? else { return Err(none()) };
        return if whole[[1]].re == 0.0 {
            Err(none())
        } else {
            Ok(Dynamic::from(whole[[0]] / whole[[1]].re))
        };
    }
    let sum = match only_element(&reduce(&cast(&array, DType::F64)?, Reduction::Sum, None)?) {
        Some(Scalar::Float(sum)) => sum,
        _ => 0.0,
    };
    let whole = communicator.all_reduce(&Array::from_vec(vec![sum, count]), ReduceOp::Sum)?;
    match &whole {
        Array::F64(whole) if whole.len() == 2 && whole[[1]] > 0.0 => {
            Ok(Dynamic::from(whole[[0]] / whole[[1]]))
        }
        _ => Err(none()),
    }
}

fn broadcast(call: &Call<'_, '_>) -> Outcome<Dynamic> {
    let communicator = call.session.communicator()?;
    let root = root_at(call, 1)?;
    let mine = if communicator.rank() == root { Some(packed(call.value(0)?)?) } else { None };
    unpacked(communicator.broadcast(mine.as_ref(), root)?)
}

fn scatter(call: &Call<'_, '_>) -> Outcome<Dynamic> {
    let communicator = call.session.communicator()?;
    let root = root_at(call, 1)?;
    let mine = match call.value(0)? {
        value if communicator.rank() != root => {
            let _ = value; // Ignored, whatever it is.
            None
        }
        value => Some(match value.read_lock::<List>() {
            Some(list) => packed_rows(&list, communicator.as_ref())?,
            None => match operand(value) {
                Some(_) => to_array(value)?,
                None => {
                    return Err(type_error(
                        "scatter splits arrays and lists; to send one value to all, use bcast",
                    ));
                }
            },
        }),
    };
    let part = communicator.scatter(mine.as_ref(), root)?;
    match part.shape() {
        // A row of `packed_rows`.
        [1, width] if *width >= MARK.len() => match &part {
            Array::U8(bytes) if bytes.iter().zip(MARK).all(|(x, y)| x == y) => {
                let bytes: Vec<u8> = bytes.iter().copied().collect();
                read_values(&bytes)?.into_iter().next().ok_or_else(damaged)
            }
            _ => Ok(Dynamic::from(part)),
        },
        _ => Ok(Dynamic::from(part)),
    }
}

/// A list as one row of bytes for every rank, all rows of one width.
fn packed_rows(list: &List, communicator: &dyn Communicator) -> Outcome<Array> {
    let size = communicator.size();
    let mut rows = Vec::with_capacity(size);
    let mut at = 0;
    for rank in 0..size {
        let count = list.len() / size + usize::from(rank < list.len() % size);
        rows.push(written(&to_value(&Dynamic::from_array(list[at..at + count].to_vec()))?)?);
        at += count;
    }
    let width = rows.iter().map(Vec::len).max().unwrap_or(0);
    super::super::arrays::element_count(&[size, width], DType::U8)?;
    let mut bytes = Vec::with_capacity(size * width);
    for row in rows {
        bytes.extend_from_slice(&row);
        bytes.resize(bytes.len() + width - row.len(), 0);
    }
    Ok(Array::U8(shaped(&[size, width], bytes)))
}

fn send(call: &Call<'_, '_>) -> Outcome<Dynamic> {
    let (to, tag) = (rank_at(call, 1)?, tag_at(call, 2)?);
    call.session.communicator()?.send(&packed(call.value(0)?)?, to, tag)?;
    Ok(Dynamic::UNIT)
}

fn receive(call: &Call<'_, '_>) -> Outcome<Dynamic> {
    let from = if call.value(0)?.is_unit() { None } else { Some(rank_at(call, 0)?) };
    let (array, _) = call.session.communicator()?.receive(from, tag_at(call, 1)?)?;
    unpacked(array)
}

fn is_marked(array: &Array) -> bool {
    match array {
        Array::U8(bytes) => {
            bytes.ndim() == 1 && bytes.len() >= MARK.len() && bytes.iter().zip(MARK).all(|(x, y)| x == y)
        }
        _ => false,
    }
}

/// The value as an array that can be sent.
fn packed(value: &Dynamic) -> Outcome<Array> {
    match operand(value) {
        Some(_) => {
            let array = to_array(value)?;
            if is_marked(&array) {
                Ok(Array::from_vec(written(&Value::Array(array.to_wire()))?))
            } else {
                Ok(array)
            }
        }
        None => Ok(Array::from_vec(written(&to_value(value)?)?)),
    }
}

/// The value that was sent.
fn unpacked(array: Array) -> Outcome<Dynamic> {
    if !is_marked(&array) {
        return Ok(from_array(array));
    }
    let bytes = bytes_of(&array);
    read_values(&bytes)?.into_iter().next().ok_or_else(damaged)
}

/// What every rank sent: an array of numbers, or a list.
fn unpacked_all(array: Array) -> Outcome<Dynamic> {
    if is_marked(&array) {
        read_values(&bytes_of(&array)).map(Dynamic::from_array)
    } else {
        Ok(Dynamic::from(array))
    }
}

fn bytes_of(array: &Array) -> Vec<u8> {
    match array {
        Array::U8(bytes) => bytes.iter().copied().collect(),
        _ => Vec::new(),
    }
}

/// Mark, length of what follows, number of buffers, length of the description, description, and each buffer
/// behind its length. All lengths are 8 bytes, little-endian.
fn written(value: &Value) -> Outcome<Vec<u8>> {
    let mut buffers = Vec::new();
    let described = protocol::value::encode(value, &mut buffers);
    let described =
        serde_json::to_vec(&described).map_err(|error| value_error(format!("cannot be sent: {error}")))?;
    let mut body = Vec::new();
    body.extend_from_slice(&(buffers.len() as u64).to_le_bytes());
    for part in std::iter::once(described.as_slice()).chain(buffers.iter().map(|buffer| buffer.as_ref())) {
        body.extend_from_slice(&(part.len() as u64).to_le_bytes());
        body.extend_from_slice(part);
    }
    let mut bytes = MARK.to_vec();
    bytes.extend_from_slice(&(body.len() as u64).to_le_bytes());
    bytes.append(&mut body);
    Ok(bytes)
}

fn damaged() -> super::super::raised::Raised {
    value_error("a value from another rank is damaged; do all ranks run the same version?")
}

/// All values that were written one after the other; zeros may follow.
fn read_values(bytes: &[u8]) -> Outcome<Vec<Dynamic>> {
    fn part<'a>(rest: &mut &'a [u8]) -> Outcome<&'a [u8]> {
        let length = number(rest)?;
        let (part, after) = rest.split_at_checked(length).ok_or_else(damaged)?;
        *rest = after;
        Ok(part)
    }
    fn number(rest: &mut &[u8]) -> Outcome<usize> {
        let (number, after) = rest.split_first_chunk::<8>().ok_or_else(damaged)?;
        *rest = after;
        usize::try_from(u64::from_le_bytes(*number)).map_err(|_| damaged())
    }
    let mut rest = bytes;
    let mut values = Vec::new();
    while let Some(after) = rest.strip_prefix(MARK) {
        rest = after;
        let mut body = part(&mut rest)?;
        let count = number(&mut body)?;
        let described = serde_json::from_slice(part(&mut body)?).map_err(|_| damaged())?;
        let mut buffers = Vec::new();
        for _ in 0..count {
            buffers.push(Bytes::copy_from_slice(part(&mut body)?));
        }
        let value = protocol::value::decode(&described, &buffers).map_err(|_| damaged())?;
        values.push(from_value(&value));
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_written_one_after_the_other_are_read_back() {
        let mut bytes = written(&Value::from("one")).expect("it can be sent");
        bytes.extend(written(&Value::from(vec![1_i64, 2])).expect("it can be sent"));
        bytes.extend([0; 7]);
        let values: Vec<Value> = read_values(&bytes)
            .expect("just written")
            .iter()
            .map(|value| to_value(value).expect("plain"))
            .collect();
        assert_eq!(values, [Value::from("one"), Value::from(vec![1_i64, 2])]);
    }

    #[test]
    fn damaged_bytes_are_an_error_and_no_panic() {
        let bytes = written(&Value::Bytes(Bytes::from_static(b"abc"))).expect("it can be sent");
        for length in MARK.len()..bytes.len() {
            assert!(read_values(&bytes[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn bytes_that_look_like_a_value_stay_bytes() {
        let tricky = Dynamic::from(Array::from_vec(MARK.to_vec()));
        let received = unpacked(packed(&tricky).expect("it can be sent")).expect("it comes back");
        assert_eq!(received.cast::<Array>(), Array::from_vec(MARK.to_vec()));
    }

    #[test]
    fn numbers_come_back_as_the_same_kind() {
        for number in [Scalar::Bool(true), Scalar::Int(3), Scalar::Float(0.5), Scalar::Complex(Complex64::I)]
        {
            let received =
                unpacked(packed(&super::super::super::convert::from_scalar(number)).expect("it can be sent"))
                    .expect("it comes back");
            assert_eq!(super::super::super::convert::scalar(&received), Some(number));
            assert_eq!(
                only_element(&to_array(&received).expect("a number")).map(Scalar::dtype),
                Some(number.dtype())
            );
        }
    }
}
