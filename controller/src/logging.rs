//! Where the log goes: standard error, a file, a collector that listens at a URL.

use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

use anyhow::Context as _;
use bytes::Bytes;
use tracing::field::{Field, Visit};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context as LayerContext, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer, fmt};
use transport::{Context, Socket, SocketOptions};

/// Log messages kept for a collector that does not read; more are dropped.
const FORWARDED_MESSAGES_MAX: u32 = 10_000;

/// Starts logging for the rest of the process.
pub(crate) fn start(
    level: LevelFilter,
    file: Option<&std::path::Path>,
    url: Option<&str>,
    context: &Context,
) -> anyhow::Result<()> {
    let to_file = file
        .map(|path| {
            let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
            let file = file.with_context(|| format!("open log file {}", path.display()))?;
            anyhow::Ok(fmt::layer().with_ansi(false).with_writer(Mutex::new(file)))
        })
        .transpose()?;
    let to_url = url.map(|url| Forward::to(context, url)).transpose()?;
    let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::registry()
        .with(level)
        .with(fmt::layer().with_ansi(is_terminal).with_writer(std::io::stderr))
        .with(to_file)
        .with(to_url)
        .try_init()
        .context("start logging")
}

/// Publishes what is logged as the original does: topic `controller.LEVEL`, then the text.
struct Forward(Mutex<Socket>);

impl Forward {
    fn to(context: &Context, url: &str) -> anyhow::Result<Forward> {
        let options = SocketOptions { send_hwm: FORWARDED_MESSAGES_MAX, ..SocketOptions::default() };
        let socket = Socket::publisher(context, &options)?;
        socket.connect(url)?;
        Ok(Forward(Mutex::new(socket)))
    }
}

impl<S: tracing::Subscriber> Layer<S> for Forward {
    fn on_event(&self, event: &tracing::Event<'_>, _context: LayerContext<'_, S>) {
        let mut line = Line(format!("{}:", event.metadata().target()));
        event.record(&mut line);
        let topic = Bytes::from(format!("controller.{}", event.metadata().level()));
        let socket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A log that cannot be forwarded is still on standard error; to log the failure would begin again here.
        let _ = socket.send([&topic, &Bytes::from(line.0)]);
    }
}

/// Fields one after the other: `text name=value …`.
struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let written = match field.name() {
            "message" => write!(self.0, " {value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
        written.expect("a string takes what is written to it");
    }
}
