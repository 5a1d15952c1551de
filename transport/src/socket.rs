//! Sockets and their options: the one place where an option is set, with the reason for its default.

use std::cell::{Cell, RefCell};
use std::ffi::CString;
use std::os::fd::RawFd;
use std::os::raw::{c_int, c_void};
use std::time::Duration;

use protocol::connection_file::Common;
use protocol::limits::{FRAME_BYTES_MAX, FRAMES_MAX};

use crate::context::Context;
use crate::curve::{Keypair, PublicKey};
use crate::error::{Errno, TransportError, check};
use crate::message::Message;
use crate::receive::Scratch;

/// `ZMQ_IPC_FILTER_UID` of zmq.h: old, in every libzmq, and missing in the bindings.
const IPC_FILTER_UID: u32 = 59;
/// `ZMQ_ZAP_ENFORCE_DOMAIN` of zmq.h, from 4.3 on; missing in the bindings, too.
const ZAP_ENFORCE_DOMAIN: u32 = 93;

/// The patterns in use, as in the ZeroMQ guide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketKind {
    /// Addresses its peers by identity, the first frame of each message.
    Router,
    /// Talks to any peer; queues while it has none.
    Dealer,
    /// Sends to all subscribers.
    Pub,
    /// Receives what it subscribed to.
    Sub,
    /// A PUB that receives subscriptions as messages (`1topic`, `0topic`).
    XPub,
    /// A SUB that sends its subscriptions as messages.
    XSub,
    /// Exactly one peer; for `inproc`.
    Pair,
}

/// Everything that can be set on a socket. The defaults suit a cluster; write `..SocketOptions::default()`.
#[derive(Debug, Clone)]
pub struct SocketOptions {
    /// The name by which ROUTER peers address this socket: 1 to 255 bytes, the first not zero. Without one, each
    /// connection gets a fresh one.
    pub identity: Option<Vec<u8>>,
    /// How long [`Socket`]'s drop leaves unsent messages in flight. Zero, so that no exit hangs on a lost peer;
    /// [`Socket::close`] takes its own.
    pub linger: Duration,
    /// Messages queued to one peer before more are refused (dropped by PUB). 0 is unlimited: the callers bound
    /// what is in flight, and a lost reply is worse than a long queue.
    pub send_hwm: u32,
    /// Messages queued from one peer before its sender is stalled. 0 is unlimited.
    pub receive_hwm: u32,
    /// ROUTER: a new connection takes over the identity of an older one. On, so that an engine that reconnects
    /// is not refused while its old connection is half-dead. The old connection stays open but carries nothing
    /// any more; its end is told when it comes.
    pub handover: bool,
    /// ROUTER: report [`Sent::Unreachable`](crate::Sent) instead of dropping in silence. PUB and XPUB: report
    /// [`Sent::WouldBlock`](crate::Sent) when a subscriber does not read, instead of dropping in silence.
    pub mandatory: bool,
    /// Queue only to completed connections: a DEALER answers `WouldBlock` until a peer is there.
    pub immediate: bool,
    /// Probes of the system on idle TCP connections, so that a peer whose machine vanished is noticed and
    /// firewalls keep the connection. `None` leaves the system's setting.
    pub keepalive: Option<Keepalive>,
    /// Pings of ZMTP on idle connections; quicker than `keepalive`. Off: stock peers have their own heartbeat,
    /// and a peer that computes with all IO threads stopped (a debugger, `kill -STOP`) would be disconnected.
    pub heartbeat: Option<Heartbeat>,
    /// Bytes of one frame. A peer that announces more is disconnected before anything is allocated.
    pub frame_bytes_max: i64,
    /// Frames of one message; more are read and dropped. libzmq itself queues a message until its last frame has
    /// come, however many there are: only [`SocketOptions::curve`] keeps strangers from sending at all.
    pub parts_max: usize,
    /// Bytes of one message; more are read and dropped.
    pub message_bytes_max: u64,
    /// How long a connection may take to complete its handshake.
    pub handshake_timeout: Duration,
    /// Pause before the first attempt to reconnect.
    pub reconnect_interval: Duration,
    /// The pause doubles up to this; zero keeps it constant.
    pub reconnect_interval_max: Duration,
    /// Connections that may wait to be accepted; all engines of a large job come at once.
    pub backlog: u16,
    /// Encryption and authentication.
    pub curve: Curve,
    /// ZAP: whoever answers for this domain decides about every peer, and if nobody does, none is let in.
    pub domain: Option<&'static str>,
    /// `ipc`: take connections of this process's user only; others are closed before a byte is read.
    pub own_user_only: bool,
    /// Fill in [`Multipart::peer_address`](crate::Multipart), at the price of an allocation per message.
    pub peer_address: bool,
}

impl Default for SocketOptions {
    fn default() -> Self {
        SocketOptions {
            identity: None,
            linger: Duration::ZERO,
            send_hwm: 0,
            receive_hwm: 0,
            handover: true,
            mandatory: false,
            immediate: false,
            keepalive: Some(Keepalive::default()),
            heartbeat: None,
            frame_bytes_max: FRAME_BYTES_MAX,
            parts_max: FRAMES_MAX,
            message_bytes_max: u64::try_from(FRAME_BYTES_MAX).expect("the bound of a frame is positive"),
            handshake_timeout: Duration::from_secs(10),
            reconnect_interval: Duration::from_millis(100),
            reconnect_interval_max: Duration::from_secs(2),
            backlog: 4096,
            curve: Curve::Off,
            domain: None,
            own_user_only: false,
            peer_address: false,
        }
    }
}

impl SocketOptions {
    /// The defaults with an identity.
    pub fn identified(identity: impl Into<Vec<u8>>) -> SocketOptions {
        SocketOptions { identity: Some(identity.into()), ..SocketOptions::default() }
    }
}

/// TCP keep-alive: after `idle` of silence, `count` probes, one each `interval`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence before the first probe.
    pub idle: Duration,
    /// Time between probes.
    pub interval: Duration,
    /// Unanswered probes until the connection counts as lost.
    pub count: u16,
}

impl Default for Keepalive {
    /// Lost after two minutes of silence.
    fn default() -> Self {
        Keepalive { idle: Duration::from_secs(60), interval: Duration::from_secs(10), count: 6 }
    }
}

/// ZMTP heartbeat: a ping each `interval`; no answer within `timeout` closes the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heartbeat {
    /// Time between pings.
    pub interval: Duration,
    /// Time for the answer.
    pub timeout: Duration,
}

/// Whether connections are encrypted, and on which side of the handshake this socket is.
#[derive(Debug, Clone, Default)]
pub enum Curve {
    /// Plain connections.
    #[default]
    Off,
    /// This socket admits those who know its public key. For sockets that bind.
    Server(Keypair),
    /// This socket proves itself with its own keys and trusts the server with this public key.
    Client {
        /// Of the server, from the connection file.
        server: PublicKey,
        /// Ours; a fresh pair will do.
        own: Keypair,
    },
}

impl Curve {
    /// The side of a peer of that controller. `server` is the controller's public key; without one connections are plain.
    /// Our keys are those of the connection file, if the controller knows its peers by them, else fresh ones.
    pub fn of_peer(server: Option<&str>, file: &Common) -> Result<Curve, TransportError> {
        let Some(server) = server.filter(|key| !key.is_empty()) else { return Ok(Curve::Off) };
        let own = match (&file.curve_publickey, &file.curve_secretkey) {
            (Some(public), Some(secret)) => Keypair::parse(public, secret)?,
            _ => Keypair::generate()?,
        };
        Ok(Curve::Client { server: PublicKey::parse(server)?, own })
    }
}

/// A ZeroMQ socket that never blocks.
///
/// It may move to another thread but is used by one at a time.
pub struct Socket {
    /// libzmq's handle of `owner`: for the calls whose errors `zmq` cannot express (see the crate's text).
    raw: *mut c_void,
    /// Closes the socket when it goes, and keeps libzmq's threads alive until then.
    _owner: zmq::Socket,
    kind: SocketKind,
    /// Readable when libzmq's threads have news for this socket.
    fd: RawFd,
    /// Whether a call since the last look at its events may have taken in such news.
    touched: Cell<bool>,
    pub(crate) bounds: Bounds,
    pub(crate) scratch: RefCell<Scratch>,
    pub(crate) outgoing: RefCell<Vec<Message>>,
}

/// What a socket can do without waiting.
#[derive(Clone, Copy)]
pub(crate) struct Events {
    pub(crate) readable: bool,
    pub(crate) writable: bool,
}

/// What [`Socket::receive`] must know of the options.
#[derive(Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) parts_max: usize,
    pub(crate) message_bytes_max: u64,
    pub(crate) peer_address: bool,
}

// SAFETY: libzmq allows a socket to migrate between threads with a full fence, which every safe way of sending
// a value has. `Socket` is not Sync (`RefCell`), so two threads never use it at once.
unsafe impl Send for Socket {}

impl Socket {
    /// A socket with all its options set, neither bound nor connected.
    pub fn new(
        context: &Context,
        kind: SocketKind,
        options: &SocketOptions,
    ) -> Result<Socket, TransportError> {
        let mut owner = context
            .socket(kind.to_zmq())
            .map_err(|error| TransportError::Create { what: "ZeroMQ socket", source: Errno::of(error) })?;
        let mut socket = Socket {
            raw: owner.as_mut_ptr(),
            fd: -1,
            touched: Cell::new(true),
            _owner: owner,
            kind,
            bounds: Bounds {
                parts_max: options.parts_max.max(1),
                message_bytes_max: options.message_bytes_max,
                peer_address: options.peer_address,
            },
            scratch: RefCell::default(),
            outgoing: RefCell::default(),
        };
        socket.apply(options)?;
        socket.fd = socket.get(zmq_sys::ZMQ_FD, "find the descriptor")?;
        Ok(socket)
    }

    /// A ROUTER.
    pub fn router(context: &Context, options: &SocketOptions) -> Result<Socket, TransportError> {
        Socket::new(context, SocketKind::Router, options)
    }

    /// A DEALER.
    pub fn dealer(context: &Context, options: &SocketOptions) -> Result<Socket, TransportError> {
        Socket::new(context, SocketKind::Dealer, options)
    }

    /// A PUB.
    pub fn publisher(context: &Context, options: &SocketOptions) -> Result<Socket, TransportError> {
        Socket::new(context, SocketKind::Pub, options)
    }

    /// An XPUB, which publishes like a PUB; for every subscription, also to what others have already, it receives a
    /// byte 1 and the topic.
    pub fn announcer(context: &Context, options: &SocketOptions) -> Result<Socket, TransportError> {
        let socket = Socket::new(context, SocketKind::XPub, options)?;
        socket.set(zmq_sys::ZMQ_XPUB_VERBOSE, "ZMQ_XPUB_VERBOSE", 1)?;
        Ok(socket)
    }

    /// A SUB that receives everything.
    pub fn subscriber(context: &Context, options: &SocketOptions) -> Result<Socket, TransportError> {
        let socket = Socket::new(context, SocketKind::Sub, options)?;
        socket.subscribe(b"")?;
        Ok(socket)
    }

    fn apply(&self, options: &SocketOptions) -> Result<(), TransportError> {
        if let Some(identity) = &options.identity {
            let hint = "choose an identity of 1 to 255 bytes that does not begin with a zero byte";
            self.set_bytes(zmq_sys::ZMQ_ROUTING_ID, "ZMQ_ROUTING_ID", hint, identity)?;
        }
        self.set(zmq_sys::ZMQ_LINGER, "ZMQ_LINGER", milliseconds(options.linger))?;
        self.set(zmq_sys::ZMQ_SNDHWM, "ZMQ_SNDHWM", saturate(options.send_hwm))?;
        self.set(zmq_sys::ZMQ_RCVHWM, "ZMQ_RCVHWM", saturate(options.receive_hwm))?;
        self.set(zmq_sys::ZMQ_IPV6, "ZMQ_IPV6", 0)?;
        self.set(zmq_sys::ZMQ_IMMEDIATE, "ZMQ_IMMEDIATE", c_int::from(options.immediate))?;
        self.set(zmq_sys::ZMQ_BACKLOG, "ZMQ_BACKLOG", c_int::from(options.backlog))?;
        self.set(zmq_sys::ZMQ_HANDSHAKE_IVL, "ZMQ_HANDSHAKE_IVL", milliseconds(options.handshake_timeout))?;
        self.set(zmq_sys::ZMQ_RECONNECT_IVL, "ZMQ_RECONNECT_IVL", milliseconds(options.reconnect_interval))?;
        let reconnect_max = milliseconds(options.reconnect_interval_max);
        self.set(zmq_sys::ZMQ_RECONNECT_IVL_MAX, "ZMQ_RECONNECT_IVL_MAX", reconnect_max)?;
        self.set_i64(zmq_sys::ZMQ_MAXMSGSIZE, "ZMQ_MAXMSGSIZE", options.frame_bytes_max)?;
        if let Some(keepalive) = options.keepalive {
            self.set(zmq_sys::ZMQ_TCP_KEEPALIVE, "ZMQ_TCP_KEEPALIVE", 1)?;
            self.set(zmq_sys::ZMQ_TCP_KEEPALIVE_IDLE, "ZMQ_TCP_KEEPALIVE_IDLE", seconds(keepalive.idle))?;
            self.set(
                zmq_sys::ZMQ_TCP_KEEPALIVE_INTVL,
                "ZMQ_TCP_KEEPALIVE_INTVL",
                seconds(keepalive.interval),
            )?;
            self.set(zmq_sys::ZMQ_TCP_KEEPALIVE_CNT, "ZMQ_TCP_KEEPALIVE_CNT", c_int::from(keepalive.count))?;
        }
        if let Some(heartbeat) = options.heartbeat {
            self.set(zmq_sys::ZMQ_HEARTBEAT_IVL, "ZMQ_HEARTBEAT_IVL", milliseconds(heartbeat.interval))?;
            self.set(
                zmq_sys::ZMQ_HEARTBEAT_TIMEOUT,
                "ZMQ_HEARTBEAT_TIMEOUT",
                milliseconds(heartbeat.timeout),
            )?;
        }
        if self.kind == SocketKind::Router {
            self.set(zmq_sys::ZMQ_ROUTER_HANDOVER, "ZMQ_ROUTER_HANDOVER", c_int::from(options.handover))?;
            self.set(zmq_sys::ZMQ_ROUTER_MANDATORY, "ZMQ_ROUTER_MANDATORY", c_int::from(options.mandatory))?;
        }
        if matches!(self.kind, SocketKind::Pub | SocketKind::XPub) {
            self.set(zmq_sys::ZMQ_XPUB_NODROP, "ZMQ_XPUB_NODROP", c_int::from(options.mandatory))?;
        }
        if options.own_user_only {
            let uid = nix::unistd::geteuid().as_raw().to_ne_bytes();
            let hint = "install a libzmq that can ask for a peer's credentials, or use tcp";
            self.set_bytes(IPC_FILTER_UID, "ZMQ_IPC_FILTER_UID", hint, &uid)?;
        }
        if let Some(domain) = options.domain {
            let hint = "choose a name of 1 to 254 bytes";
            self.set_bytes(zmq_sys::ZMQ_ZAP_DOMAIN, "ZMQ_ZAP_DOMAIN", hint, domain.as_bytes())?;
            self.set(ZAP_ENFORCE_DOMAIN, "ZMQ_ZAP_ENFORCE_DOMAIN", 1)?;
        }
        self.apply_curve(&options.curve)
    }

    fn apply_curve(&self, curve: &Curve) -> Result<(), TransportError> {
        let hint = "install a libzmq that has CURVE, or switch CURVE off";
        let set = |option, name, key: &[u8]| self.set_bytes(option, name, hint, key);
        match curve {
            Curve::Off => Ok(()),
            Curve::Server(own) => {
                self.set(zmq_sys::ZMQ_CURVE_SERVER, "ZMQ_CURVE_SERVER", 1)?;
                set(zmq_sys::ZMQ_CURVE_PUBLICKEY, "ZMQ_CURVE_PUBLICKEY", own.public.as_str().as_bytes())?;
                set(zmq_sys::ZMQ_CURVE_SECRETKEY, "ZMQ_CURVE_SECRETKEY", own.secret.expose().as_bytes())
            }
            Curve::Client { server, own } => {
                set(zmq_sys::ZMQ_CURVE_SERVERKEY, "ZMQ_CURVE_SERVERKEY", server.as_str().as_bytes())?;
                set(zmq_sys::ZMQ_CURVE_PUBLICKEY, "ZMQ_CURVE_PUBLICKEY", own.public.as_str().as_bytes())?;
                set(zmq_sys::ZMQ_CURVE_SECRETKEY, "ZMQ_CURVE_SECRETKEY", own.secret.expose().as_bytes())
            }
        }
    }

    /// What kind it is.
    pub fn kind(&self) -> SocketKind {
        self.kind
    }

    /// Binds and returns the endpoint as bound: `tcp://127.0.0.1:0` becomes `tcp://127.0.0.1:41234`.
    ///
    /// `tcp://*:…` is returned as `tcp://0.0.0.0:…`, which is no address to connect to.
    pub fn bind(&self, endpoint: &str) -> Result<String, TransportError> {
        let address = c_endpoint(endpoint)?;
        // SAFETY: the socket is alive, the address NUL-terminated.
        check(unsafe { zmq_sys::zmq_bind(self.as_ptr(), address.as_ptr()) }).map_err(|source| {
            TransportError::Bind { endpoint: endpoint.into(), hint: source.endpoint_hint(), source }
        })?;
        self.last_endpoint()
    }

    /// Connects, now or as soon as the peer is there; reconnects for as long as the socket lives.
    pub fn connect(&self, endpoint: &str) -> Result<(), TransportError> {
        let address = c_endpoint(endpoint)?;
        // SAFETY: the socket is alive, the address NUL-terminated.
        check(unsafe { zmq_sys::zmq_connect(self.as_ptr(), address.as_ptr()) }).map(drop).map_err(|source| {
            TransportError::Connect { endpoint: endpoint.into(), hint: source.endpoint_hint(), source }
        })
    }

    /// Ends what [`Socket::connect`] began with the same endpoint.
    pub fn disconnect(&self, endpoint: &str) -> Result<(), TransportError> {
        let address = c_endpoint(endpoint)?;
        // SAFETY: the socket is alive, the address NUL-terminated.
        check(unsafe { zmq_sys::zmq_disconnect(self.as_ptr(), address.as_ptr()) }).map(drop).map_err(
            |source| TransportError::Connect {
                endpoint: endpoint.into(),
                hint: "it is not connected there",
                source,
            },
        )
    }

    /// SUB: receive what begins with `topic` too.
    pub fn subscribe(&self, topic: &[u8]) -> Result<(), TransportError> {
        self.set_bytes(zmq_sys::ZMQ_SUBSCRIBE, "ZMQ_SUBSCRIBE", "only SUB sockets subscribe", topic)
    }

    /// SUB: take back one [`Socket::subscribe`] of the same topic.
    pub fn unsubscribe(&self, topic: &[u8]) -> Result<(), TransportError> {
        self.set_bytes(zmq_sys::ZMQ_UNSUBSCRIBE, "ZMQ_UNSUBSCRIBE", "only SUB sockets subscribe", topic)
    }

    /// Changes how many messages may wait for a peer, of connections made from now on; 0 is unlimited.
    pub fn set_send_hwm(&self, messages: u32) -> Result<(), TransportError> {
        self.set(zmq_sys::ZMQ_SNDHWM, "ZMQ_SNDHWM", saturate(messages))
    }

    /// Changes how many messages of a peer may wait for us, of connections made from now on; 0 is unlimited.
    pub fn set_receive_hwm(&self, messages: u32) -> Result<(), TransportError> {
        self.set(zmq_sys::ZMQ_RCVHWM, "ZMQ_RCVHWM", saturate(messages))
    }

    /// Closes the socket. What was sent may still leave for as long as `linger`.
    ///
    /// This returns at once; it is the drop of the last [`Context`] that waits, for at most `linger`.
    pub fn close(self, linger: Duration) -> Result<(), TransportError> {
        self.set(zmq_sys::ZMQ_LINGER, "ZMQ_LINGER", milliseconds(linger))
    }

    /// For calls that do something with the socket.
    pub(crate) fn as_ptr(&self) -> *mut c_void {
        self.touched.set(true);
        self.raw
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.fd
    }

    /// Whether nothing can be received unless [`Socket::fd`] says that there is news.
    pub(crate) fn is_settled(&self) -> bool {
        !self.touched.get()
    }

    /// The socket was found empty, all news taken in.
    pub(crate) fn settle(&self) {
        self.touched.set(false);
    }

    /// What can be done without waiting.
    pub(crate) fn events(&self) -> Result<Events, TransportError> {
        let events: c_int = self.get(zmq_sys::ZMQ_EVENTS, "look at events")?;
        let readable = events & zmq_sys::ZMQ_POLLIN as c_int != 0;
        self.touched.set(readable);
        Ok(Events { readable, writable: events & zmq_sys::ZMQ_POLLOUT as c_int != 0 })
    }

    fn get(&self, option: u32, operation: &'static str) -> Result<c_int, TransportError> {
        let mut value: c_int = 0;
        let mut length = size_of::<c_int>();
        // SAFETY: the socket is alive; libzmq writes an int, for which there is room.
        check(unsafe {
            zmq_sys::zmq_getsockopt(self.raw, option as c_int, (&raw mut value).cast(), &mut length)
        })
        .map(|_| value)
        .map_err(|source| TransportError::Operation { operation, source })
    }

    fn last_endpoint(&self) -> Result<String, TransportError> {
        // The longest is an ipc path of 107 bytes or an inproc name of 255, with its prefix.
        let mut buffer = [0_u8; 512];
        let mut length = buffer.len();
        let option = zmq_sys::ZMQ_LAST_ENDPOINT as c_int;
        // SAFETY: the socket is alive; libzmq writes at most `length` bytes and sets it to how many.
        check(unsafe { zmq_sys::zmq_getsockopt(self.raw, option, buffer.as_mut_ptr().cast(), &mut length) })
            .map_err(|source| TransportError::Operation { operation: "read the endpoint", source })?;
        let text = buffer.get(..length.saturating_sub(1)).unwrap_or_default();
        Ok(String::from_utf8_lossy(text).into_owned())
    }

    fn set(&self, option: u32, name: &'static str, value: c_int) -> Result<(), TransportError> {
        self.set_bytes(option, name, "give a value that libzmq accepts", &value.to_ne_bytes())
    }

    fn set_i64(&self, option: u32, name: &'static str, value: i64) -> Result<(), TransportError> {
        self.set_bytes(option, name, "give a value that libzmq accepts", &value.to_ne_bytes())
    }

    fn set_bytes(
        &self,
        option: u32,
        name: &'static str,
        hint: &'static str,
        value: &[u8],
    ) -> Result<(), TransportError> {
        // SAFETY: the socket is alive; libzmq reads `value.len()` bytes and copies them.
        check(unsafe {
            zmq_sys::zmq_setsockopt(self.as_ptr(), option as c_int, value.as_ptr().cast(), value.len())
        })
        .map(drop)
        .map_err(|source| TransportError::Option { option: name, hint, source })
    }
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Socket").field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl SocketKind {
    fn to_zmq(self) -> zmq::SocketType {
        match self {
            SocketKind::Router => zmq::ROUTER,
            SocketKind::Dealer => zmq::DEALER,
            SocketKind::Pub => zmq::PUB,
            SocketKind::Sub => zmq::SUB,
            SocketKind::XPub => zmq::XPUB,
            SocketKind::XSub => zmq::XSUB,
            SocketKind::Pair => zmq::PAIR,
        }
    }
}

fn c_endpoint(endpoint: &str) -> Result<CString, TransportError> {
    CString::new(endpoint).map_err(|_| TransportError::Endpoint { endpoint: endpoint.into() })
}

/// As libzmq counts; durations beyond 24 days become that.
fn milliseconds(duration: Duration) -> c_int {
    c_int::try_from(duration.as_millis()).unwrap_or(c_int::MAX)
}

/// As TCP counts keep-alive: at least one.
fn seconds(duration: Duration) -> c_int {
    c_int::try_from(duration.as_secs().max(1)).unwrap_or(c_int::MAX)
}

fn saturate(value: u32) -> c_int {
    c_int::try_from(value).unwrap_or(c_int::MAX)
}
