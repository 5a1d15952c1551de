//! Texts for people.

use std::time::Duration;

use super::Ready;
use crate::failure::Failure;

const BOLD_RED: &str = "\x1b[1;31m";
const BOLD_GREEN: &str = "\x1b[1;32m";
const RESET: &str = "\x1b[0m";

/// What stands on the screen when a cluster is ready.
pub(super) fn ready(ready: &Ready, colour: bool) -> String {
    let took = duration(Duration::from_secs_f64(ready.seconds.max(0.0)));
    let stop =
        if ready.in_background { ready.stop.clone() } else { format!("Ctrl-C here, or: {}", ready.stop) };
    format!(
        "cluster {}: {} {} after {took}\n  try:  {}\n  stop: {stop}",
        ready.cluster,
        ready.engines,
        paint("ready", BOLD_GREEN, colour),
        ready.next,
    )
}

/// A failure as it stands on the screen.
pub(super) fn failure(failure: &Failure, colour: bool) -> String {
    format!("{} {failure}", paint("error:", BOLD_RED, colour))
}

/// `640 ms`, `1.25 s`, `3 min 20 s`, `5 h 3 min`, `12 d 4 h`.
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{} ms", duration.as_millis()),
        1..60 => format!("{:.2} s", duration.as_secs_f64()),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86400, seconds % 86400 / 3600),
    }
}

fn paint(text: &str, style: &str, colour: bool) -> String {
    if colour { format!("{style}{text}{RESET}") } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::failure::{Code, LastLines};

    fn example() -> Ready {
        Ready {
            cluster: "lab".into(),
            profile_dir: "/p".into(),
            cluster_id: String::new(),
            engines: "4 MPI engines (Open MPI 4.1.4)".into(),
            ids: vec![0, 1, 2, 3],
            seconds: 0.6234,
            supervisor: 7,
            in_background: false,
            client_file: "/p/security/ipcontroller-client.json".into(),
            next: "client --profile=lab px 'rank()'".into(),
            stop: "cluster --profile=lab stop".into(),
        }
    }

    #[test]
    fn a_ready_cluster_says_what_to_type_next() {
        expect![[r#"
            cluster lab: 4 MPI engines (Open MPI 4.1.4) ready after 623 ms
              try:  client --profile=lab px 'rank()'
              stop: Ctrl-C here, or: cluster --profile=lab stop"#]]
        .assert_eq(&ready(&example(), false));
        expect![[r#"
            cluster lab: 4 MPI engines (Open MPI 4.1.4) ready after 623 ms
              try:  client --profile=lab px 'rank()'
              stop: cluster --profile=lab stop"#]]
        .assert_eq(&ready(&Ready { in_background: true, ..example() }, false));
    }

    #[test]
    fn a_failure_names_cause_last_lines_and_remedy() {
        let example = Failure::new(Code::LaunchFailed, "failed to start engines: rank 1 exited with code 7")
            .because("the command was: mpiexec -n 4 engine --mpi")
            .with_last_lines(Some(LastLines {
                path: "/p/log/engines-0.log".into(),
                lines: vec!["oh no".into()],
            }))
            .hint("do better");
        expect![[r#"
            error: failed to start engines: rank 1 exited with code 7
              caused by: the command was: mpiexec -n 4 engine --mpi
              last lines of /p/log/engines-0.log:
                | oh no
              hint: do better"#]]
        .assert_eq(&failure(&example, false));
    }

    #[test]
    fn durations_have_the_unit_that_fits() {
        let text = |millis| duration(Duration::from_millis(millis));
        assert_eq!(text(640), "640 ms");
        assert_eq!(text(1_250), "1.25 s");
        assert_eq!(text(200_000), "3 min 20 s");
        assert_eq!(text(18_200_000), "5 h 3 min");
        assert_eq!(text(1_051_200_000), "12 d 4 h");
    }
}
