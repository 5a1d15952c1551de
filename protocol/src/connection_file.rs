//! The two files that say where a controller is: one for clients, one for engines. No file access here.

use serde::{Deserialize, Serialize};

use crate::buffer_digest::BufferDigests;
use crate::signature::{Key, SIGNATURE_SCHEME};

/// What both files hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Common {
    /// `[user@]server[:port]` to tunnel through; empty: none.
    #[serde(default)]
    pub ssh: String,
    /// `tcp://127.0.0.1`, `tcp://*`, `ipc:///path`: transport and address without a port.
    pub interface: String,
    /// Port of hub queries and registrations; the same in both files.
    pub registration: u16,
    /// Port of the control channel.
    pub control: u16,
    /// Port of the direct channel.
    pub mux: u16,
    /// Port of the balanced channel.
    pub task: u16,
    /// Port of the output channel.
    pub iopub: u16,
    /// The key's text; empty: messages are not signed.
    #[serde(default)]
    pub key: String,
    /// The public key of the controller's CURVE sockets (Z85), if they are encrypted.
    #[serde(default)]
    pub curve_serverkey: Option<String>,
    /// The keys that peers of this file prove themselves with, if the controller requires it: an addition of ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub curve_publickey: Option<String>,
    /// And the secret one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub curve_secretkey: Option<String>,
    /// The controller's host, to interpret addresses like `*`.
    #[serde(default)]
    pub location: String,
    /// All addresses of that host, if the interface is `*`: an addition of ours, which stock peers ignore.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    /// Whether peers make digests of buffers: an addition of ours.
    #[serde(default, skip_serializing_if = "BufferDigests::is_off")]
    pub buffer_digests: BufferDigests,
    /// Always `json` (`orjson` is the same on the wire).
    #[serde(default = "json")]
    pub pack: String,
    /// Always `json`.
    #[serde(default = "json")]
    pub unpack: String,
    /// Always `hmac-sha256`.
    #[serde(default = "hmac_sha256")]
    pub signature_scheme: String,
}

/// `ipcontroller[-<cluster id>]-client.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientFile {
    /// What both files hold.
    #[serde(flatten)]
    pub common: Common,
    /// Port of notifications.
    pub notification: u16,
    /// Port of the broadcast channel.
    pub broadcast: u16,
    /// How balanced tasks are placed; must be there.
    #[serde(default = "least_load")]
    pub task_scheme: String,
}

/// `ipcontroller[-<cluster id>]-engine.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineFile {
    /// What both files hold.
    #[serde(flatten)]
    pub common: Common,
    /// Port where heartbeats are published.
    pub hb_ping: u16,
    /// Port where they are echoed to.
    pub hb_pong: u16,
    /// Ports of the broadcast channel; an engine uses number `id mod length`.
    pub broadcast: Vec<u16>,
}

/// Why a connection file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectionFileError {
    /// Not the JSON of a connection file.
    #[error("not a connection file: {0}")]
    Malformed(String),
    /// Messages would be packed in a way that we do not read.
    #[error(
        "messages packed as {0:?} cannot be read, only json; set Session.packer='json' in the controller"
    )]
    Packer(String),
    /// Signatures of another kind.
    #[error("the signature scheme {0:?} is not supported, only {SIGNATURE_SCHEME}")]
    Scheme(String),
    /// Not `transport://address`.
    #[error("{0:?} is not an interface like tcp://127.0.0.1 or ipc:///path")]
    Interface(String),
    /// An engine file without broadcast ports.
    #[error("the engine file names no broadcast port")]
    NoBroadcast,
}

fn json() -> String {
    "json".to_owned()
}

fn hmac_sha256() -> String {
    SIGNATURE_SCHEME.to_owned()
}

fn least_load() -> String {
    "leastload".to_owned()
}

impl Common {
    /// The key.
    pub fn key(&self) -> Key {
        Key::new(self.key.as_str())
    }

    fn validate(&self) -> Result<(), ConnectionFileError> {
        for packer in [&self.pack, &self.unpack] {
            if !matches!(packer.as_str(), "json" | "orjson") {
                return Err(ConnectionFileError::Packer(packer.clone()));
            }
        }
        if !self.key.is_empty() && self.signature_scheme != SIGNATURE_SCHEME {
            return Err(ConnectionFileError::Scheme(self.signature_scheme.clone()));
        }
        match self.interface.split_once("://") {
            Some(("tcp" | "ipc", address)) if !address.is_empty() => Ok(()),
            _ => Err(ConnectionFileError::Interface(self.interface.clone())),
        }
    }

    /// The address of a channel: interface, colon, port, as all peers form it.
    pub fn url(&self, port: u16) -> String {
        format!("{}:{port}", self.interface)
    }
}

impl ClientFile {
    /// Reads and checks the file's text.
    pub fn parse(text: &str) -> Result<ClientFile, ConnectionFileError> {
        let file: ClientFile =
            serde_json::from_str(text).map_err(|error| ConnectionFileError::Malformed(error.to_string()))?;
        file.common.validate()?;
        Ok(file)
    }
}

impl EngineFile {
    /// Reads and checks the file's text.
    pub fn parse(text: &str) -> Result<EngineFile, ConnectionFileError> {
        let file: EngineFile =
            serde_json::from_str(text).map_err(|error| ConnectionFileError::Malformed(error.to_string()))?;
        file.common.validate()?;
        if file.broadcast.is_empty() {
            return Err(ConnectionFileError::NoBroadcast);
        }
        Ok(file)
    }

    /// The broadcast port of an engine.
    pub fn broadcast_port(&self, id: crate::id::EngineId) -> u16 {
        self.broadcast[id.0 as usize % self.broadcast.len()]
    }
}

/// What a peer knows of its own machine, to choose the address to connect to.
#[derive(Clone, Debug, Default)]
pub struct LocalMachine {
    /// The host's name.
    pub hostname: String,
    /// The host's own addresses.
    pub addresses: Vec<String>,
}

/// Where to connect when the interface is `0.0.0.0` or `*`: this machine's loopback if the controller runs
/// here, else what `resolve` makes of its location. Other interfaces are used as they are.
pub fn disambiguate(
    interface: &str,
    location: &str,
    here: &LocalMachine,
    resolve: impl FnOnce(&str) -> Option<String>,
) -> String {
    let Some(("tcp", address)) = interface.split_once("://") else {
        return interface.to_owned();
    };
    if !matches!(address, "0.0.0.0" | "*") {
        return interface.to_owned();
    }
    if location.is_empty() || location == here.hostname {
        return "tcp://127.0.0.1".to_owned();
    }
    let is_address =
        location.split('.').count() == 4 && location.split('.').all(|part| part.parse::<u8>().is_ok());
    let resolved = if is_address {
        location.to_owned()
    } else {
        resolve(location).unwrap_or_else(|| location.to_owned())
    };
    if resolved.starts_with("127.") || here.addresses.contains(&resolved) {
        "tcp://127.0.0.1".to_owned()
    } else {
        format!("tcp://{resolved}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CLIENT: &str = r#"{"ssh":"","interface":"tcp://127.0.0.1","registration":50029,"control":47599,"mux":51297,"task":44001,
        "task_scheme":"leastload","iopub":50625,"notification":57933,"broadcast":53069,"unknown":[1],
        "key":"521c7a5a-cef389d554380fe2641b9678","curve_serverkey":null,"location":"vm","pack":"json","unpack":"json","signature_scheme":"hmac-sha256"}"#;
    const ENGINE: &str = r#"{"ssh":"","interface":"tcp://127.0.0.1","registration":50029,"control":60741,"mux":42161,"task":37635,"iopub":44313,
        "hb_ping":43585,"hb_pong":40801,"broadcast":[53593,47297],
        "key":"521c7a5a-cef389d554380fe2641b9678","curve_serverkey":null,"location":"vm","pack":"json","unpack":"json","signature_scheme":"hmac-sha256"}"#;

    #[test]
    fn captured_files_of_the_original_are_read() {
        let client = ClientFile::parse(CLIENT).expect("a real one");
        assert_eq!(client.common.url(client.notification), "tcp://127.0.0.1:57933");
        let engine = EngineFile::parse(ENGINE).expect("a real one");
        assert_eq!(engine.broadcast_port(crate::id::EngineId(3)), 47297);
        assert_eq!(client.common.key(), engine.common.key());
    }

    #[test]
    fn what_is_written_is_read_again_and_has_the_keys_that_stock_clients_index() {
        let client = ClientFile::parse(CLIENT).expect("a real one");
        let text = serde_json::to_string_pretty(&client).expect("plain data");
        assert_eq!(ClientFile::parse(&text), Ok(client));
        let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert!(json["ssh"].is_string() && json["task_scheme"].is_string() && json["broadcast"].is_u64());
    }

    #[test]
    fn files_that_ask_for_what_we_cannot_do_are_refused_with_the_reason() {
        let pickle = CLIENT.replace(r#""pack":"json""#, r#""pack":"pickle""#);
        assert_eq!(ClientFile::parse(&pickle), Err(ConnectionFileError::Packer("pickle".into())));
        let sha1 = CLIENT.replace("hmac-sha256", "hmac-sha1");
        assert_eq!(ClientFile::parse(&sha1), Err(ConnectionFileError::Scheme("hmac-sha1".into())));
        let none = ENGINE.replace("[53593,47297]", "[]");
        assert_eq!(EngineFile::parse(&none), Err(ConnectionFileError::NoBroadcast));
        let udp = ENGINE.replace("tcp://127.0.0.1", "udp://1");
        assert_eq!(EngineFile::parse(&udp), Err(ConnectionFileError::Interface("udp://1".into())));
    }

    #[test]
    fn a_wildcard_interface_is_resolved_by_the_location() {
        let here = LocalMachine { hostname: "me".into(), addresses: vec!["10.0.0.1".into()] };
        let cases = [
            ("tcp://1.2.3.4", "other", "tcp://1.2.3.4"),
            ("ipc:///tmp/x", "other", "ipc:///tmp/x"),
            ("tcp://*", "", "tcp://127.0.0.1"),
            ("tcp://0.0.0.0", "me", "tcp://127.0.0.1"),
            ("tcp://0.0.0.0", "10.0.0.1", "tcp://127.0.0.1"),
            ("tcp://0.0.0.0", "10.0.0.9", "tcp://10.0.0.9"),
            ("tcp://*", "other", "tcp://10.0.0.7"),
        ];
        for (interface, location, expected) in cases {
            let resolve = |name: &str| (name == "other").then(|| "10.0.0.7".to_owned());
            assert_eq!(disambiguate(interface, location, &here, resolve), expected, "{interface} {location}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "\\PC{0,200}") {
            let _ = ClientFile::parse(&text);
            let _ = EngineFile::parse(&text);
        }
    }
}
