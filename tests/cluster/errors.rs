//! Functions from files, and errors that say rank, line and column.

use std::time::Duration;

use client::{EngineId, Failure, OutputItem, ResultEvent};
use tests::{DEADLINE, Engines, TestCluster};

const FUNCTIONS: &str = "\
// Two functions that a person keeps in a file.
fn square(x) {
    x * x
}

fn share(x) {
    x / psum(x)
}
";

#[test]
fn functions_of_a_file_are_used_from_the_next_cell() {
    let cluster = TestCluster::start(Engines::Mpi, 4);
    let file = cluster.profile().join("functions.rhai");
    std::fs::write(&file, FUNCTIONS).expect("the temporary directory is ours");
    cluster.client(&["run", file.to_str().expect("a path in UTF-8")]).ok();
    cluster.client(&["px", "y = square(rank() + 1); z = share(1.0)"]).ok();
    assert_eq!(cluster.client(&["pull", "y", "--json"]).ok().trim(), "[1,4,9,16]");
    assert_eq!(cluster.client(&["pull", "z", "--json"]).ok().trim(), "[0.25,0.25,0.25,0.25]");
}

#[test]
fn an_error_on_rank_2_only_gives_three_results_and_one_error_with_its_place() {
    let cluster = TestCluster::start(Engines::Mpi, 4);
    let client = cluster.connect();
    let code = "x = rank()\nif x == 2 {\n    nosuch(x)\n}\nx * 10";
    let result = client.all().execute(code).expect("it can be sent");
    let outcomes = result.join(DEADLINE).expect("every engine answers");
    assert_eq!(outcomes.len(), 4);
    for outcome in &outcomes {
        match &outcome.result {
            Ok(_) => assert_eq!(outcome.displayed, outcome.rank().map(|rank| (rank * 10).to_string())),
            Err(Failure::Remote(error)) => {
                assert_eq!((outcome.id(), error.rank), (Some(EngineId(2)), Some(2)));
                assert_eq!((error.line, error.column), (Some(3), Some(5)), "{error}");
                assert!(error.to_string().contains("nosuch"), "{error}");
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(outcomes.iter().filter(|outcome| outcome.result.is_err()).count(), 1);
    let shown = cluster.client(&["px", code]);
    assert_eq!(shown.code(), 1);
    let text = shown.stdout + &shown.stderr;
    for word in ["rank 2", "line 3", "nosuch", "30"] {
        assert!(text.contains(word), "{word:?} is missing in:\n{text}");
    }
}

#[test]
fn output_is_streamed_while_the_cell_runs() {
    let cluster = TestCluster::start(Engines::Local, 1);
    let client = cluster.connect();
    let result = client.all().execute("print(\"first\"); sleep(30)").expect("it can be sent");
    let first = result.next_event(Duration::from_secs(10));
    let ResultEvent::Output(output) = first else { panic!("no output came while the cell ran: {first:?}") };
    assert_eq!(output.item, OutputItem::Stdout("first\n".to_owned()));
    assert!(!result.is_done());
    client.all().interrupt().expect("the engine is there");
    assert!(result.join(DEADLINE).expect("it ends")[0].result.is_err());
}
