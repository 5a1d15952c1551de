//! The sockets of an engine and what they connect to.

use std::time::Duration;

use protocol::connection_file::EngineFile;
use protocol::id::{EngineId, EngineUuid};
use protocol::limits::{ENGINE_WAITING_MAX, OUTPUT_MESSAGES_WAITING_MAX};
use transport::{Context, Curve, Socket, SocketKind, SocketOptions, TransportError};

/// How long the last messages of an engine may take to leave.
const LINGER: Duration = Duration::from_secs(2);

/// How long the word that an engine leaves may take. A hub that has just shut it down can be gone already, and then
/// nobody takes it; one that is there and does not get it sees the connection end.
const FAREWELL: Duration = Duration::from_millis(200);

/// What every socket of one engine has in common.
pub struct Plugs {
    context: Context,
    uuid: EngineUuid,
    curve: Curve,
    file: EngineFile,
}

/// The two sockets of the heart.
#[derive(Debug)]
pub struct Heart {
    /// Where pings come from.
    pub ping: Socket,
    /// Where they are echoed to.
    pub pong: Socket,
}

impl Plugs {
    /// For the engine of that name and the controller of that file, whose interface must be one to connect to.
    pub fn new(context: &Context, uuid: &EngineUuid, file: EngineFile) -> Result<Plugs, TransportError> {
        let curve = Curve::of_peer(file.common.curve_serverkey.as_deref(), &file.common)?;
        Ok(Plugs { context: context.clone(), uuid: uuid.clone(), curve, file })
    }

    /// The file.
    pub fn file(&self) -> &EngineFile {
        &self.file
    }

    /// The context.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Registers and unregisters.
    pub fn registration(&self, url: &str) -> Result<Socket, TransportError> {
        let options = SocketOptions { linger: FAREWELL, ..self.options() };
        let socket = Socket::dealer(&self.context, &options)?;
        socket.connect(url)?;
        Ok(socket)
    }

    /// Takes requests from three schedulers. Mandatory, so that [`super::ready::Ready`] learns when it is
    /// known to them.
    pub fn shell(&self, id: EngineId) -> Result<Socket, TransportError> {
        let receive_hwm = u32::try_from(ENGINE_WAITING_MAX).unwrap_or(u32::MAX);
        let options = SocketOptions { mandatory: true, receive_hwm, ..self.options() };
        let socket = Socket::router(&self.context, &options)?;
        let common = &self.file.common;
        for port in [common.mux, common.task, self.file.broadcast_port(id)] {
            socket.connect(&common.url(port))?;
        }
        Ok(socket)
    }

    /// Takes control requests.
    pub fn control(&self) -> Result<Socket, TransportError> {
        let socket = Socket::router(&self.context, &SocketOptions { mandatory: true, ..self.options() })?;
        socket.connect(&self.file.common.url(self.file.common.control))?;
        Ok(socket)
    }

    /// Publishes output. Bounded, because user code can print faster than anybody reads. An XPUB, which is told
    /// of subscriptions: what is published before the controller's has arrived is lost.
    pub fn iopub(&self) -> Result<Socket, TransportError> {
        let options =
            SocketOptions { mandatory: true, send_hwm: OUTPUT_MESSAGES_WAITING_MAX, ..self.options() };
        let socket = Socket::new(&self.context, SocketKind::XPub, &options)?;
        socket.connect(&self.file.common.url(self.file.common.iopub))?;
        Ok(socket)
    }

    /// The heart, not yet connected: its first beat says that the engine can be used.
    pub fn heart(&self) -> Result<Heart, TransportError> {
        // An old ping is worth nothing, nor is a subscription to more of them.
        let ping_options = SocketOptions { receive_hwm: 16, linger: Duration::ZERO, ..self.options() };
        let pong_options = SocketOptions { send_hwm: 16, linger: Duration::ZERO, ..self.options() };
        Ok(Heart {
            ping: Socket::subscriber(&self.context, &ping_options)?,
            pong: Socket::dealer(&self.context, &pong_options)?,
        })
    }

    /// Connects the heart.
    pub fn start_heart(&self, heart: &Heart) -> Result<(), TransportError> {
        heart.pong.connect(&self.file.common.url(self.file.hb_pong))?;
        heart.ping.connect(&self.file.common.url(self.file.hb_ping))
    }

    fn options(&self) -> SocketOptions {
        SocketOptions {
            linger: LINGER,
            curve: self.curve.clone(),
            ..SocketOptions::identified(self.uuid.as_str())
        }
    }
}
