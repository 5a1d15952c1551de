//! What a relay through this crate costs against one on bare libzmq.
//!
//! A client (ROUTER) sends messages of nine frames of 100 bytes to a relay of two ROUTER sockets, which swaps the
//! identities and sends them on to an engine (ROUTER), as the direct channel does; the engine sends them back the
//! same way. Once with one message in flight (latency), once with many (throughput), over loopback TCP.
//!
//! `cargo run --release --package transport --example relay [seconds per figure]`

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use transport::poll::{PollItem, poll};
use transport::{Context, Multipart, Received, Sent, Socket, SocketOptions};

const FRAMES: usize = 9;
const FRAME_BYTES: usize = 100;
const WINDOW: usize = 1000;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let seconds = std::env::args().nth(1).map_or(Ok(3.0), |text| text.parse::<f64>())?;
    println!("{:<12} {:>16} {:>16} {:>16} {:>18}", "relay", "min µs", "median µs", "p99 µs", "round trips/s");
    for _ in 0..2 {
        for (name, relay) in [("transport", through_transport as Relay), ("bare zmq", through_bare_zmq)] {
            let figures = measure(relay, Duration::from_secs_f64(seconds))?;
            let Figures { min, median, p99, per_second } = figures;
            println!("{name:<12} {min:>16.1} {median:>16.1} {p99:>16.1} {per_second:>18.0}");
        }
    }
    Ok(())
}

struct Figures {
    min: f64,
    median: f64,
    p99: f64,
    per_second: f64,
}

/// Binds two ROUTERs, tells their endpoints, and relays until told to stop.
type Relay = fn(std::sync::mpsc::Sender<[String; 2]>, Arc<AtomicBool>);

fn measure(relay: Relay, duration: Duration) -> Result<Figures, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    let (bound, endpoints) = std::sync::mpsc::channel();
    let relaying = thread::spawn({
        let stop = Arc::clone(&stop);
        move || relay(bound, stop)
    });
    let [front, back] = endpoints.recv()?;
    let echoing = thread::spawn({
        let stop = Arc::clone(&stop);
        move || echo(&back, &stop)
    });
    let figures = drive(&front, duration);
    stop.store(true, Ordering::Relaxed);
    relaying.join().map_err(|_| "the relay panicked")?;
    echoing.join().map_err(|_| "the engine panicked")?;
    figures
}

/// The client: the same for both relays.
fn drive(front: &str, duration: Duration) -> Result<Figures, Failure> {
    let context = Context::new(1)?;
    let client = Socket::dealer(&context, &SocketOptions::default())?;
    client.connect(front)?;
    let mut request = vec![Bytes::from_static(b"engine")];
    request.extend((1..FRAMES).map(|_| Bytes::from(vec![b'x'; FRAME_BYTES])));
    // The first requests are dropped until the engine has connected.
    while exchange(&client, &request, Duration::from_millis(50))?.is_none() {}
    while exchange(&client, &[], Duration::from_millis(200))?.is_some() {}

    let mut round_trips = Vec::new();
    let end = Instant::now() + duration;
    while Instant::now() < end {
        let start = Instant::now();
        exchange(&client, &request, Duration::from_secs(10))?.ok_or("a message was lost")?;
        round_trips.push(start.elapsed().as_secs_f64() * 1e6);
    }
    round_trips.sort_by(f64::total_cmp);

    let start = Instant::now();
    let (mut sent, mut received) = (0, 0_usize);
    while start.elapsed() < duration || received < sent {
        while sent - received < WINDOW && start.elapsed() < duration {
            expect_sent(client.send(&request)?)?;
            sent += 1;
        }
        poll(&mut [PollItem::from(&client)], Some(Duration::from_secs(10)))?;
        while client.receive()?.is_some() {
            received += 1;
        }
    }
    let per_second = received as f64 / start.elapsed().as_secs_f64();
    let at = |part: f64| round_trips[(part * (round_trips.len() - 1) as f64) as usize];
    Ok(Figures { min: at(0.0), median: at(0.5), p99: at(0.99), per_second })
}

fn exchange(client: &Socket, request: &[Bytes], timeout: Duration) -> Result<Option<Received>, Failure> {
    if !request.is_empty() {
        expect_sent(client.send(request)?)?;
    }
    poll(&mut [PollItem::from(client)], Some(timeout))?;
    Ok(client.receive()?)
}

fn expect_sent(sent: Sent) -> Result<(), Failure> {
    if sent == Sent::Done { Ok(()) } else { Err(format!("not sent: {sent:?}").into()) }
}

/// The engine: the same for both relays.
fn echo(back: &str, stop: &AtomicBool) {
    let context = Context::new(1).expect("a context can be made");
    let engine =
        Socket::router(&context, &SocketOptions::identified("engine")).expect("a socket can be made");
    engine.connect(back).expect("the relay's endpoint is valid");
    while !stop.load(Ordering::Relaxed) {
        poll(&mut [PollItem::from(&engine)], Some(Duration::from_millis(20)))
            .expect("the socket can be polled");
        while let Some(Received::Message(message)) = engine.receive().expect("the socket can be read") {
            let _ = engine.send(&message.parts).expect("the socket can be written");
        }
    }
}

fn through_transport(bound: std::sync::mpsc::Sender<[String; 2]>, stop: Arc<AtomicBool>) {
    let context = Context::new(1).expect("a context can be made");
    let named = |name: &str| SocketOptions { mandatory: true, ..SocketOptions::identified(name) };
    let front = Socket::router(&context, &named("mux_in")).expect("a socket can be made");
    let back = Socket::router(&context, &named("mux_out")).expect("a socket can be made");
    let endpoints = [&front, &back].map(|socket| socket.bind("tcp://127.0.0.1:0").expect("a port is free"));
    bound.send(endpoints).expect("the main thread waits for this");
    let forward = |from: &Socket, to: &Socket| {
        while let Some(Received::Message(message)) = from.receive().expect("the socket can be read") {
            let Multipart { mut parts, .. } = message;
            parts.swap(0, 1);
            let _ = to.send(&parts).expect("the socket can be written");
        }
    };
    while !stop.load(Ordering::Relaxed) {
        let mut items = [PollItem::from(&front), PollItem::from(&back)];
        poll(&mut items, Some(Duration::from_millis(20))).expect("the sockets can be polled");
        let [front_ready, back_ready] = items.map(|item| item.is_readable());
        if front_ready {
            forward(&front, &back);
        }
        if back_ready {
            forward(&back, &front);
        }
    }
}

fn through_bare_zmq(bound: std::sync::mpsc::Sender<[String; 2]>, stop: Arc<AtomicBool>) {
    let context = zmq::Context::new();
    let named = |name: &str| {
        let socket = context.socket(zmq::ROUTER).expect("a socket can be made");
        socket.set_identity(name.as_bytes()).expect("the identity is valid");
        socket.set_router_mandatory(true).expect("a ROUTER has this option");
        socket.set_sndhwm(0).and_then(|()| socket.set_rcvhwm(0)).expect("0 is valid");
        socket.set_linger(0).expect("0 is valid");
        socket.bind("tcp://127.0.0.1:0").expect("a port is free");
        socket
    };
    let (front, back) = (named("mux_in"), named("mux_out"));
    let endpoint =
        |socket: &zmq::Socket| socket.get_last_endpoint().expect("it was bound").expect("endpoints are text");
    bound.send([endpoint(&front), endpoint(&back)]).expect("the main thread waits for this");
    let forward = |from: &zmq::Socket, to: &zmq::Socket| {
        let mut frames: Vec<zmq::Message> = Vec::with_capacity(FRAMES + 1);
        loop {
            let mut frame = zmq::Message::new();
            if from.recv(&mut frame, zmq::DONTWAIT).is_err() {
                return;
            }
            let more = frame.get_more();
            frames.push(frame);
            if more {
                continue;
            }
            frames.swap(0, 1);
            let last = frames.len() - 1;
            for (index, frame) in frames.drain(..).enumerate() {
                let flags = if index < last { zmq::DONTWAIT | zmq::SNDMORE } else { zmq::DONTWAIT };
                if to.send(frame, flags).is_err() {
                    break;
                }
            }
        }
    };
    while !stop.load(Ordering::Relaxed) {
        let mut items = [front.as_poll_item(zmq::POLLIN), back.as_poll_item(zmq::POLLIN)];
        zmq::poll(&mut items, 20).expect("the sockets can be polled");
        let [front_ready, back_ready] = [items[0].is_readable(), items[1].is_readable()];
        if front_ready {
            forward(&front, &back);
        }
        if back_ready {
            forward(&back, &front);
        }
    }
}
