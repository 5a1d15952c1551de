//! `client status`: the controller, the engines, what they do.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use client::{ClientError, EngineId, Targets};
use protocol::extension::{ClusterStatus, EngineStatus};
use serde_json::json;

use crate::cli::App;
use crate::render::Style;

/// How long engines may take to say what they do.
const ENGINES_TIMEOUT: Duration = Duration::from_secs(1);

/// Arguments of `status`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Engines answer even while they compute or wait in a collective.\n\nExamples:\n  client status\n  client status --json"
)]
pub(crate) struct Args {}

impl Args {
    pub(crate) fn run(self, app: &App) -> anyhow::Result<()> {
        show(app)
    }
}

/// Prints the status.
pub(crate) fn show(app: &App) -> anyhow::Result<()> {
    let cluster = match app.client.cluster_status() {
        Ok(cluster) => Some(cluster),
        // A stock controller does not know the request; its engines are known all the same.
        Err(ClientError::Remote(_)) => None,
        Err(error) => return Err(error.into()),
    };
    let engines = match app.client.engine_status(&app.global.targets, ENGINES_TIMEOUT) {
        Ok(engines) => engines,
        Err(ClientError::NoSuchEngine { .. }) if app.global.targets == Targets::All => BTreeMap::new(),
        Err(error) => return Err(error.into()),
    };
    let page = if app.global.json {
        format!("{}\n", json!({ "cluster": cluster, "engines": engines }))
    } else {
        let here = app.client.engines();
        let rows: Vec<Row> = here
            .iter()
            .map(|engine| {
                let state = cluster.as_ref().and_then(|cluster| cluster.engines.get(&engine.id));
                Row {
                    id: engine.id,
                    rank: engine.rank(),
                    host: engine.host().to_owned(),
                    pid: engine.description.as_ref().map(|description| description.pid),
                    waiting: state.map(|state| state.queue + state.tasks),
                    done: state.map(|state| state.completed),
                    status: engines.get(&engine.id).cloned(),
                    is_stock: !engine.is_ours(),
                }
            })
            .collect();
        page(cluster.as_ref(), &rows, app.style)
    };
    crate::watch::print(&page);
    Ok(())
}

struct Row {
    id: EngineId,
    rank: Option<u32>,
    host: String,
    pid: Option<u32>,
    waiting: Option<usize>,
    done: Option<usize>,
    status: Option<EngineStatus>,
    is_stock: bool,
}

fn page(cluster: Option<&ClusterStatus>, rows: &[Row], style: Style) -> String {
    let mut page = String::new();
    if let Some(cluster) = cluster {
        let mut facts = vec![
            format!("controller {} on {} (pid {})", cluster.version, cluster.host, cluster.pid),
            format!("up {}", duration(cluster.uptime_seconds)),
            bytes(cluster.memory_bytes),
        ];
        if cluster.waiting_tasks > 0 {
            facts.push(format!("{} tasks wait for an engine", cluster.waiting_tasks));
        }
        if cluster.joining > 0 {
            facts.push(format!("{} engines are joining", cluster.joining));
        }
        let refused: u64 = cluster.refused.values().sum();
        if refused > 0 {
            facts.push(format!("{refused} messages refused"));
        }
        push_line(&mut page, &facts.join(" · "));
    }
    if rows.is_empty() {
        push_line(&mut page, "no engine is here; start some with `cluster engines -n 4`");
        return page;
    }
    let header = ["id", "rank", "host", "pid", "queued", "done", "memory", "state"].map(str::to_owned);
    let mut table = vec![header.to_vec()];
    for row in rows {
        let text = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        table.push(vec![
            row.id.to_string(),
            text(row.rank.map(|rank| rank.to_string())),
            text(Some(row.host.clone()).filter(|host| !host.is_empty())),
            text(row.pid.map(|pid| pid.to_string())),
            text(row.waiting.map(|waiting| waiting.to_string())),
            text(row.done.map(|done| done.to_string())),
            text(row.status.as_ref().map(|status| bytes(status.memory_bytes))),
            state(row),
        ]);
    }
    let widths: Vec<usize> = (0..header.len())
        .map(|column| table.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    for (number, row) in table.iter().enumerate() {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}", width = *width)).collect();
        let line = cells.join("  ");
        push_line(
            &mut page,
            &if number == 0 { style.faint(line.trim_end()) } else { line.trim_end().to_owned() },
        );
    }
    page
}

fn push_line(page: &mut String, line: &str) {
    writeln!(page, "{line}").expect("a string takes what is written to it");
}

fn state(row: &Row) -> String {
    match &row.status {
        Some(status) => match &status.waiting_in {
            Some(call) => format!("waits in {call} for {}", duration(status.waiting_seconds)),
            None if status.busy => format!("works for {}", duration(status.running_seconds)),
            None => "idle".to_owned(),
        },
        None if row.is_stock => "stock engine".to_owned(),
        None => "does not answer".to_owned(),
    }
}

fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 10.0 => format!("{s:.1} s"),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

fn bytes(count: u64) -> String {
    let mebibytes = count as f64 / (1024.0 * 1024.0);
    if mebibytes < 1024.0 { format!("{mebibytes:.0} MiB") } else { format!("{:.1} GiB", mebibytes / 1024.0) }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn the_table_is_aligned_and_says_where_ranks_wait() {
        let cluster = ClusterStatus {
            version: "0.1.0".into(),
            pid: 12,
            host: "node0".into(),
            uptime_seconds: 75.0,
            memory_bytes: 9 * 1024 * 1024,
            waiting_tasks: 3,
            ..ClusterStatus::default()
        };
        let row = |id: u32, status: Option<EngineStatus>| Row {
            id: EngineId(id),
            rank: Some(id),
            host: "node0".into(),
            pid: Some(1000 + id),
            waiting: Some(1),
            done: Some(12),
            status,
            is_stock: false,
        };
        let waits = EngineStatus {
            busy: true,
            waiting_in: Some("barrier".into()),
            waiting_seconds: 12.0,
            memory_bytes: 50 << 20,
            ..EngineStatus::default()
        };
        let rows = [row(0, Some(waits)), row(1, Some(EngineStatus::default())), row(2, None)];

        expect![[r#"
            controller 0.1.0 on node0 (pid 12) · up 75 s · 9 MiB · 3 tasks wait for an engine
            id  rank  host   pid   queued  done  memory  state
            0   0     node0  1000  1       12    50 MiB  waits in barrier for 12 s
            1   1     node0  1001  1       12    0 MiB   idle
            2   2     node0  1002  1       12    -       does not answer
        "#]]
        .assert_eq(&page(Some(&cluster), &rows, Style { colour: false }));
    }
}
