//! Indexing: taking parts of an array, and storing into them.

use ndarray::{ArcArray, Axis, Dimension, IxDyn, Slice};
use protocol::value::DType;

use crate::array::{Array, Element};
use crate::each_dtype;

use super::super::raised::{Outcome, index_error, type_error, value_error};
use super::cast::{cast, cast_for_store};
use super::elementwise::broadcast_shape;
use super::{Number, shape_text, shaped};

/// What is written between the brackets for one axis.
#[derive(Clone, Debug)]
pub(crate) enum Pick {
    /// One position; the axis goes. Negative ones count from the end.
    At(i64),
    /// From `start` to before `stop`, in steps. Bounds outside the axis are cut, as in Python.
    Span { start: Option<i64>, stop: Option<i64>, step: i64 },
    /// These positions, in this order.
    List(Vec<i64>),
}

impl Pick {
    /// The whole axis.
    pub(crate) const WHOLE: Pick = Pick::Span { start: None, stop: None, step: 1 };
}

/// What is written between the brackets.
#[derive(Clone, Debug)]
pub(crate) enum Selection {
    /// One pick for each of the first axes.
    Axes(Vec<Pick>),
    /// The elements where a mask of the array's shape holds.
    Mask(ArcArray<bool, IxDyn>),
}

/// The picks that an array between the brackets means.
pub(crate) fn selection_of_array(index: &Array, indexed: &[usize]) -> Outcome<Selection> {
    match index {
        Array::Bool(mask) if mask.ndim() == 1 && indexed.len() > 1 && mask.len() == indexed[0] => {
            let rows = mask.iter().enumerate().filter(|(_, keep)| **keep).map(|(row, _)| row as i64);
            Ok(Selection::Axes(vec![Pick::List(rows.collect())]))
        }
        Array::Bool(mask) if mask.shape() == indexed => Ok(Selection::Mask(mask.clone())),
        Array::Bool(mask) => Err(index_error(format!(
            "a mask of shape {} does not fit an array of shape {}",
            shape_text(mask.shape()),
            shape_text(indexed)
        ))),
        _ => Ok(Selection::Axes(vec![list_of_array(index)?])),
    }
}

/// The positions that an array lists.
pub(crate) fn list_of_array(index: &Array) -> Outcome<Pick> {
    if matches!(index.dtype(), DType::F64 | DType::F32 | DType::C64) && !index.is_empty() {
        return Err(type_error(format!(
            "an index is an integer, not {}; convert with `i64(x)`",
            index.dtype()
        )));
    }
    if let Array::Bool(mask) = index {
        let positions = mask.iter().enumerate().filter(|(_, keep)| **keep).map(|(at, _)| at as i64);
        return Ok(Pick::List(positions.collect()));
    }
    if index.shape().len() > 1 {
        return Err(type_error("an index array has one axis; use `flatten(x)`"));
    }
    match cast(index, DType::I64)? {
        Array::I64(positions) => Ok(Pick::List(positions.iter().copied().collect())),
        _ => unreachable!("it was converted to i64"),
    }
}

fn position(at: i64, extent: usize, axis: usize) -> Outcome<usize> {
    let wrapped = if at < 0 { at.saturating_add(extent as i64) } else { at };
    match usize::try_from(wrapped) {
        Ok(wrapped) if wrapped < extent => Ok(wrapped),
        _ => Err(index_error(format!("index {at} is outside axis {axis}, which has {extent} elements"))),
    }
}

/// Python's rules for the bounds of a slice: the first position, how many, and the step.
fn span(start: Option<i64>, stop: Option<i64>, step: i64, extent: usize) -> Outcome<(usize, usize, i64)> {
    if step == 0 {
        return Err(value_error("the step of a slice cannot be 0"));
    }
    let extent = extent as i64;
    let (low, high) = if step > 0 { (0, extent) } else { (-1, extent - 1) };
    let bound = |bound: i64| {
        let wrapped = if bound < 0 { bound.saturating_add(extent) } else { bound };
        wrapped.clamp(low, high)
    };
    let start = start.map_or(if step > 0 { low } else { high }, bound);
    let stop = stop.map_or(if step > 0 { high } else { low }, bound);
    let distance = if step > 0 { stop - start } else { start - stop };
    if distance <= 0 {
        return Ok((0, 0, 1));
    }
    let width = step.unsigned_abs() as i64;
    let width = if width <= 0 { i64::MAX } else { width }; // step is i64::MIN
    let count = (distance - 1) / width + 1;
    Ok((start as usize, count as usize, step))
}

/// The part of an array that a selection names. `Ok` holds an array without axes for a single element.
pub(crate) fn select(array: &Array, selection: &Selection) -> Outcome<Array> {
    fn select_typed<T: Number>(array: &ArcArray<T, IxDyn>, selection: &Selection) -> Outcome<Array> {
        match selection {
            Selection::Mask(mask) => {
                let kept: Vec<T> =
                    array.iter().zip(mask.iter()).filter(|(_, keep)| **keep).map(|(&x, _)| x).collect();
                Ok(Array::from_vec(kept))
            }
            Selection::Axes(picks) => {
                check_axes(picks.len(), array.shape())?;
                if let Some(index) = single_element(picks, array.shape())? {
                    return Ok(Array::scalar(array[IxDyn(&index)]));
                }
                let mut part = array.clone();
                let mut axis = 0; // In `part`, which loses an axis for each single position.
                for (original, pick) in picks.iter().enumerate() {
                    let extent = part.shape()[axis];
                    match pick {
                        Pick::At(at) => {
                            let at = position(*at, extent, original)?;
                            part.index_axis_inplace(Axis(axis), at);
                        }
                        Pick::Span { start, stop, step } => {
                            let (first, count, step) = span(*start, *stop, *step, extent)?;
                            part.slice_axis_inplace(Axis(axis), slice_of(first, count, step));
                            axis += 1;
                        }
                        Pick::List(list) => {
                            let positions = list
                                .iter()
                                .map(|&at| position(at, extent, original))
                                .collect::<Outcome<Vec<usize>>>()?;
                            part = part.select(Axis(axis), &positions).into_shared();
                            axis += 1;
                        }
                    }
                }
                // A small part must not keep the memory of the whole alive.
                Ok(T::wrap(part.as_standard_layout().to_owned().into_shared()))
            }
        }
    }
    each_dtype!(array, a => select_typed(a, selection))
}

fn slice_of(first: usize, count: usize, step: i64) -> Slice {
    if count == 0 {
        return Slice::new(0, Some(0), 1);
    }
    let (first, last) = (first as i64, first as i64 + (count as i64 - 1) * step);
    // ndarray counts the bounds from the front also for negative steps.
    let (low, high) = if step > 0 { (first, last) } else { (last, first) };
    Slice::new(low as isize, Some(high as isize + 1), step as isize)
}

fn check_axes(picks: usize, shape: &[usize]) -> Outcome<()> {
    if picks > shape.len() {
        return Err(index_error(format!(
            "{picks} indices for an array of {} axes (shape {})",
            shape.len(),
            shape_text(shape)
        )));
    }
    Ok(())
}

/// The position of the one element that picks name, if they name one.
fn single_element(picks: &[Pick], shape: &[usize]) -> Outcome<Option<Vec<usize>>> {
    if picks.len() != shape.len() {
        return Ok(None);
    }
    let mut index = Vec::with_capacity(picks.len());
    for (axis, pick) in picks.iter().enumerate() {
        match pick {
            Pick::At(at) => index.push(position(*at, shape[axis], axis)?),
            _ => return Ok(None),
        }
    }
    Ok(Some(index))
}

/// `array[selection] = value`; the value is broadcast. Copies the array first if others share its memory.
pub(crate) fn store(array: &mut Array, selection: &Selection, value: &Array) -> Outcome<()> {
    let value = cast_for_store(value, array.dtype())?;
    match (array, &value) {
        (Array::F64(a), Array::F64(v)) => store_typed(a, selection, v),
        (Array::F32(a), Array::F32(v)) => store_typed(a, selection, v),
        (Array::I64(a), Array::I64(v)) => store_typed(a, selection, v),
        (Array::I32(a), Array::I32(v)) => store_typed(a, selection, v),
        (Array::U8(a), Array::U8(v)) => store_typed(a, selection, v),
        (Array::Bool(a), Array::Bool(v)) => store_typed(a, selection, v),
        (Array::C64(a), Array::C64(v)) => store_typed(a, selection, v),
        _ => unreachable!("the value was converted to the array's type"),
    }
}

fn store_typed<T: Element>(
    array: &mut ArcArray<T, IxDyn>,
    selection: &Selection,
    value: &ArcArray<T, IxDyn>,
) -> Outcome<()> {
    let picks = match selection {
        Selection::Mask(mask) => return store_masked(array, mask, value),
        Selection::Axes(picks) => picks,
    };
    check_axes(picks.len(), array.shape())?;
    if value.len() == 1
        && let Some(index) = single_element(picks, array.shape())?
    {
        let element = *value.iter().next().expect("it has one element");
        array[IxDyn(&index)] = element;
        return Ok(());
    }
    let shape = array.shape().to_vec();
    let mut positions: Vec<Vec<usize>> = Vec::with_capacity(shape.len());
    let mut target = Vec::with_capacity(shape.len());
    for (axis, &extent) in shape.iter().enumerate() {
        let listed = match picks.get(axis).unwrap_or(&Pick::WHOLE) {
            Pick::At(at) => vec![position(*at, extent, axis)?],
            Pick::Span { start, stop, step } => {
                let (first, count, step) = span(*start, *stop, *step, extent)?;
                (0..count).map(|n| (first as i64 + n as i64 * step) as usize).collect()
            }
            Pick::List(list) => list.iter().map(|&at| position(at, extent, axis)).collect::<Outcome<_>>()?,
        };
        if !matches!(picks.get(axis), Some(Pick::At(_))) {
            target.push(listed.len());
        }
        positions.push(listed);
    }
    let value = fit(value, &target)?;
    let mut index = IxDyn(&vec![0; shape.len()]);
    let mut counters = vec![0_usize; shape.len()];
    let mut view = array.view_mut();
    for &element in value.iter() {
        for (axis, &counter) in counters.iter().enumerate() {
            index.slice_mut()[axis] = positions[axis][counter];
        }
        view[&index] = element;
        for axis in (0..shape.len()).rev() {
            counters[axis] += 1;
            if counters[axis] < positions[axis].len() {
                break;
            }
            counters[axis] = 0;
        }
    }
    Ok(())
}

/// The value, broadcast to the shape of the place it goes to.
fn fit<T: Element>(value: &ArcArray<T, IxDyn>, target: &[usize]) -> Outcome<ArcArray<T, IxDyn>> {
    let fits = broadcast_shape(value.shape(), target).is_ok_and(|shape| shape == target);
    match value.broadcast(IxDyn(target)) {
        Some(view) if fits => Ok(shaped(target, view.iter().copied().collect())),
        _ => Err(value_error(format!(
            "a value of shape {} does not fit into a place of shape {}",
            shape_text(value.shape()),
            shape_text(target)
        ))),
    }
}

fn store_masked<T: Element>(
    array: &mut ArcArray<T, IxDyn>,
    mask: &ArcArray<bool, IxDyn>,
    value: &ArcArray<T, IxDyn>,
) -> Outcome<()> {
    let kept = mask.iter().filter(|keep| **keep).count();
    let value = fit(value, &[kept])?;
    let mut values = value.iter();
    for (element, &keep) in array.view_mut().iter_mut().zip(mask.iter()) {
        if keep && let Some(&value) = values.next() {
            *element = value;
        }
    }
    Ok(())
}
