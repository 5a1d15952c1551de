//! Finding the engine connection file, and the address in it that can be reached from here.

use std::path::Path;
use std::time::Duration;

use protocol::Key;
use protocol::connection_file::EngineFile;
use serde_json::Value as Json;
use transport::connection_file::{self, ConnectionFileError};
use transport::profile::Profile;
use transport::reach::{self, hostname};
use transport::socket_directory;
use transport::tunnel::{self, Tunnel};

use super::failure::{EXIT_NO_CONTROLLER, Failure};
use super::place::Place;
use crate::cli::Settings;

/// The file's text, instead of a file.
const CONNECTION_INFO: &str = "IPP_CONNECTION_INFO";
/// The key, where the file has none.
const SESSION_KEY: &str = "IPP_SESSION_KEY";

/// # Collective
/// The connection file, its interface made one to connect to from here, and the tunnel that it leads through, if any.
/// Rank 0 waits for the file, so that a missing one is reported once and polled by one process.
pub fn find(
    settings: &Settings,
    profile: &Profile,
    place: &Place,
) -> Result<(EngineFile, Option<Tunnel>), Failure> {
    let found = find_text(settings, profile, place);
    let mut file =
        EngineFile::parse(&found?).map_err(|error| Failure::file("use the engine connection file", error))?;
    let location = settings.location.as_deref().unwrap_or(&file.common.location);
    if let Some(server) = server(settings, &file.common.ssh, location) {
        let tunnel = tunnel_through(server, settings, &file)?;
        file.common.interface = tunnel.interface();
        return Ok((file, Some(tunnel)));
    }
    if let Some(directory) = socket_directory::missing(&file.common.interface) {
        return Err(Failure::elsewhere(location, directory, &hostname()));
    }
    if reach::is_loopback_of_another(&file.common, location) {
        return Err(Failure::loopback_elsewhere(location, &file.common.interface, &hostname()));
    }
    let reach = reach::choose(&file.common, location);
    if !reach.tried.is_empty() {
        tracing::warn!(
            tried = reach.tried.join(", "),
            "no address of the controller answers from this machine"
        );
    }
    file.common.interface = reach.interface;
    Ok((file, None))
}

/// The machine to go through, if any.
fn server<'a>(settings: &'a Settings, named: &'a str, location: &str) -> Option<&'a str> {
    match settings.ssh.as_deref() {
        Some("none") => None,
        Some(server) => Some(server),
        None => Some(named).filter(|server| !server.is_empty() && !reach::is_here(location)),
    }
}

fn tunnel_through(server: &str, settings: &Settings, file: &EngineFile) -> Result<Tunnel, Failure> {
    let common = &file.common;
    let mut ports = vec![
        common.registration,
        common.control,
        common.mux,
        common.task,
        common.iopub,
        file.hb_ping,
        file.hb_pong,
    ];
    ports.extend(&file.broadcast);
    let request = tunnel::Request {
        server: server.parse().map_err(Failure::tunnel)?,
        key: settings.ssh_key.as_deref(),
        file: common,
        ports: &ports,
        may_ask: false,
    };
    Tunnel::open(&request).map_err(Failure::tunnel)
}

/// The key that signs messages.
pub fn key(file: &EngineFile) -> Key {
    let key = file.common.key();
    if !key.is_empty() {
        return key;
    }
    Key::new(std::env::var(SESSION_KEY).unwrap_or_default())
}

fn find_text(settings: &Settings, profile: &Profile, place: &Place) -> Result<String, Failure> {
    if let Some(text) = std::env::var(CONNECTION_INFO).ok().filter(|text| !text.is_empty()) {
        return Ok(text);
    }
    let path = settings.file.clone().unwrap_or_else(|| profile.engine_file());
    if place.rank() == 0 {
        let read = read(&path, settings.file_timeout, profile);
        place.broadcast(Some(&[u8::from(read.is_ok())])).map_err(Failure::between_ranks)?;
        return read;
    }
    if place.broadcast(None).map_err(Failure::between_ranks)? != [1] {
        return Err(Failure::told_by_rank_0(EXIT_NO_CONTROLLER));
    }
    read(&path, settings.file_timeout, profile)
}

fn read(path: &Path, timeout: Duration, profile: &Profile) -> Result<String, Failure> {
    let json: Json = connection_file::wait(path, timeout, || false).map_err(|error| match error {
        ConnectionFileError::Absent { .. } => Failure::no_file(&error, &controller_command(profile)),
        error => {
            let cause = std::error::Error::source(&error).map_or_else(String::new, ToString::to_string);
            Failure::file(error.to_string(), cause)
        }
    })?;
    Ok(json.to_string())
}

/// The command whose file was looked for.
fn controller_command(profile: &Profile) -> String {
    let cluster_id = match profile.cluster_id() {
        "" => String::new(),
        id => format!(" --cluster-id {id}"),
    };
    format!("controller --profile-dir {}{cluster_id}", profile.dir().display())
}
