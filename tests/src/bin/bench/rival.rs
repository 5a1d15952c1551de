//! The rivals: programs that do the same with nothing of ours in between.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

/// `transport/examples/bare_relay.rs`: two ROUTER sockets of bare libzmq.
pub(crate) struct BareRelay {
    pub(crate) client_endpoint: String,
    pub(crate) engine_endpoint: String,
    process: Child,
}

impl BareRelay {
    pub(crate) fn start() -> Result<BareRelay> {
        let mut process = Command::new(tests::program("examples/bare_relay"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("failed to start the bare relay")?;
        let mut line = String::new();
        let stdout = process.stdout.take().context("its output is piped")?;
        BufReader::new(stdout).read_line(&mut line)?;
        let endpoints: Vec<&str> = line.split_whitespace().collect();
        let [client, engine] = endpoints[..] else {
            let _ = process.kill();
            bail!("the bare relay did not say where it listens");
        };
        Ok(BareRelay { client_endpoint: client.to_owned(), engine_endpoint: engine.to_owned(), process })
    }
}

impl Drop for BareRelay {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
