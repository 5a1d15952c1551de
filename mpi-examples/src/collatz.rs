//! Work that nobody can divide fairly beforehand: each task takes as long as it takes.

use engine::{RunError, TaskContext, Value};

/// How many steps of "halve it if even, else three times and one" lead from `start` to 1.
///
/// Not collective: a load-balanced view gives every call to whichever engine has room, and no engine knows what the
/// others do. A function that is called this way must not enter a collective.
pub fn collatz(task: TaskContext<'_>, arguments: Vec<Value>) -> Result<Value, RunError> {
    let &[Value::Int(start)] = arguments.as_slice() else {
        return Err(RunError::new("TypeError", "collatz(start) takes one integer"));
    };
    if start < 1 {
        return Err(RunError::new("ValueError", format!("collatz({start}): start at 1 or above")));
    }
    let (mut number, mut steps) = (start, 0_i64);
    while number != 1 {
        let next = match number % 2 {
            0 => Some(number / 2),
            _ => number.checked_mul(3).and_then(|triple| triple.checked_add(1)),
        };
        number = next.ok_or_else(|| {
            RunError::new("OverflowError", format!("collatz({start}) passes 2^63 after {steps} steps"))
        })?;
        steps += 1;
        if steps % 100_000 == 0 && task.interrupt.is_raised() {
            return Err(RunError::new("KeyboardInterrupt", format!("interrupted after {steps} steps")));
        }
    }
    Ok(Value::Int(steps))
}
