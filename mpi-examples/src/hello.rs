//! The smallest function: it takes an argument, prints, and returns a value.

use engine::runner::Stream;
use engine::{RunError, TaskContext, Value};

/// Greets from this rank: prints the greeting and returns it. No rank waits for another.
///
/// Arguments arrive as values, whatever the client's language; a function checks them itself. What it returns goes
/// back to the client that called it, or becomes the value of the expression `hello("…")` in a cell.
pub fn hello(task: TaskContext<'_>, arguments: Vec<Value>) -> Result<Value, RunError> {
    let [Value::Str(name)] = arguments.as_slice() else {
        return Err(RunError::new("TypeError", "hello(name) takes one string"));
    };
    let world = &task.communicator;
    let greeting = format!("hello {name}, this is rank {} of {}", world.rank(), world.size());
    // Not `println!`: the client that asked gets it, labelled with the rank, while the function still runs.
    task.output.borrow_mut().write(Stream::Stdout, &format!("{greeting}\n"));
    Ok(greeting.into())
}
