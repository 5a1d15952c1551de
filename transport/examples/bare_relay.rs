//! The least that a relay can do: two ROUTER sockets of bare libzmq, and the swap of two frames. What the
//! controller is measured against. Prints its client and engine endpoints, and ends when its input closes or it
//! is killed.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let context = zmq::Context::new();
    let clients = context.socket(zmq::ROUTER)?;
    clients.set_identity(b"mux_in")?;
    let engines = context.socket(zmq::ROUTER)?;
    engines.set_identity(b"mux_out")?;
    for socket in [&clients, &engines] {
        socket.set_sndhwm(0)?;
        socket.set_rcvhwm(0)?;
        socket.bind("tcp://127.0.0.1:*")?;
    }
    let endpoint =
        |socket: &zmq::Socket| Ok::<_, Box<dyn Error>>(socket.get_last_endpoint()?.map_err(|_| "not text")?);
    println!("{} {}", endpoint(&clients)?, endpoint(&engines)?);
    loop {
        let mut items = [clients.as_poll_item(zmq::POLLIN), engines.as_poll_item(zmq::POLLIN)];
        zmq::poll(&mut items, -1)?;
        let ready = [items[0].is_readable(), items[1].is_readable()];
        for (ready, from, to) in [(ready[0], &clients, &engines), (ready[1], &engines, &clients)] {
            if !ready {
                continue;
            }
            while let Ok(mut parts) = recv_parts(from) {
                if parts.len() >= 2 {
                    parts.swap(0, 1);
                    let last = parts.len() - 1;
                    for (index, part) in parts.into_iter().enumerate() {
                        to.send(part, if index < last { zmq::SNDMORE } else { 0 })?;
                    }
                }
            }
        }
    }
}

fn recv_parts(socket: &zmq::Socket) -> zmq::Result<Vec<zmq::Message>> {
    let mut parts = Vec::with_capacity(10);
    loop {
        let mut part = zmq::Message::new();
        socket.recv(&mut part, if parts.is_empty() { zmq::DONTWAIT } else { 0 })?;
        let more = part.get_more();
        parts.push(part);
        if !more {
            return Ok(parts);
        }
    }
}
