//! The logistic map x → r x (1 - x), in two tasks of which the second needs what the first has left on its engine.

use std::cell::RefCell;
use std::collections::BTreeMap;

use engine::{RunError, TaskContext, Value};

/// How many values of r an engine remembers.
const STATES_MAX: usize = 10_000;

thread_local! {
    /// Where orbits are, by the bits of r. Functions run on one thread.
    static ORBITS: RefCell<BTreeMap<u64, f64>> = const { RefCell::new(BTreeMap::new()) };
}

/// `settle(r, steps)`: follows an orbit until it has forgotten where it began, and leaves it on this engine.
pub fn settle(task: TaskContext<'_>, arguments: Vec<Value>) -> Result<Value, RunError> {
    let (r, steps) = parameters("settle", &arguments)?;
    let mut x = 0.3;
    for step in 0..steps {
        x = r * x * (1.0 - x);
        if step % 100_000 == 0 && task.interrupt.is_raised() {
            return Err(RunError::new("KeyboardInterrupt", format!("interrupted after {step} steps")));
        }
    }
    ORBITS.with_borrow_mut(|orbits| {
        if orbits.len() >= STATES_MAX {
            orbits.clear();
        }
        orbits.insert(r.to_bits(), x);
    });
    Ok(Value::None)
}

/// `lyapunov(r, steps)`: how fast neighbours of the settled orbit part, per step; above 0 it is chaotic. The orbit must
/// have settled on this engine.
pub fn lyapunov(_task: TaskContext<'_>, arguments: Vec<Value>) -> Result<Value, RunError> {
    let (r, steps) = parameters("lyapunov", &arguments)?;
    let x = ORBITS.with_borrow_mut(|orbits| orbits.remove(&r.to_bits()));
    let Some(mut x) = x else {
        let text =
            format!("lyapunov: the orbit of {r} is not on this engine; call settle({r}, steps) there first");
        return Err(RunError::new("LookupError", text));
    };
    let mut sum = 0.0;
    for _ in 0..steps {
        sum += (r * (1.0 - 2.0 * x)).abs().max(f64::MIN_POSITIVE).ln();
        x = r * x * (1.0 - x);
    }
    Ok(Value::Float(sum / steps as f64))
}

fn parameters(name: &str, arguments: &[Value]) -> Result<(f64, i64), RunError> {
    match arguments {
        [Value::Float(r), Value::Int(steps)] if (0.0..=4.0).contains(r) && *steps > 0 => Ok((*r, *steps)),
        [Value::Float(_), Value::Int(_)] => {
            Err(RunError::new("ValueError", format!("{name}(r, steps): r is from 0 to 4, steps above 0")))
        }
        _ => Err(RunError::new("TypeError", format!("{name}(r, steps) takes a float and an integer"))),
    }
}
