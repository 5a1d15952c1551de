//! What strangers send is counted and dropped, and the cluster goes on.

use bytes::Bytes;
use protocol::connection_file::ClientFile;
use protocol::{Date, Key, Session};
use tests::{Engines, TestCluster, wait_until};
use transport::{Context, Socket, SocketOptions};

#[test]
fn messages_without_the_key_are_counted_and_dropped_and_psum_goes_on() {
    let cluster = TestCluster::start(Engines::Mpi, 2);
    let text = std::fs::read_to_string(cluster.profile().join("security/ipcontroller-client.json"))
        .expect("it is there");
    let file = ClientFile::parse(&text).expect("our own file");
    let context = Context::new(1).expect("a context");

    let mut stranger = Session::new("stranger".into(), "s", 1, &Key::new("not the key"));
    let mut friend = Session::new("friend".into(), "f", 1, &file.common.key());
    let empty = serde_json::json!({});
    let now = Date::from_micros(1_800_000_000_000_000);
    let request = |session: &mut Session| {
        session.message(now, "connection_request", &empty, &empty, vec![]).to_parts(&[])
    };

    let wrong = request(&mut stranger);
    let mut unsigned = request(&mut friend);
    unsigned[1] = Bytes::new();
    let once = request(&mut friend);
    let mut moved = request(&mut friend);
    let joined = [moved[2].as_ref(), moved[3].as_ref()].concat();
    moved[2] = Bytes::from(joined);
    moved[3] = Bytes::new();
    let truncated = request(&mut friend)[..4].to_vec();
    let noise = vec![Bytes::from_static(b"\xff\xfe"), Bytes::new()];
    let giant = {
        let mut parts = request(&mut friend);
        parts[2] = Bytes::from(vec![b' '; protocol::limits::HEADER_BYTES_MAX + 1]);
        parts
    };
    let many = vec![Bytes::from_static(b"x"); protocol::limits::FRAMES_MAX + 100];

    for port in
        [file.common.registration, file.common.mux, file.common.task, file.common.control, file.broadcast]
    {
        let socket = Socket::dealer(&context, &SocketOptions::default()).expect("a socket");
        socket.connect(&file.common.url(port)).expect("the controller listens");
        for parts in [&wrong, &unsigned, &once, &once, &moved, &truncated, &noise, &giant, &many] {
            let _ = socket.send(parts).expect("libzmq takes it");
        }
        // Closing at once would throw away what has not left yet.
        socket.close(std::time::Duration::from_secs(2)).expect("it was open");
    }

    let client = cluster.connect();
    wait_until("all of it was refused", || {
        let refused = client.cluster_status().expect("the hub answers").refused;
        ["wrongly_signed", "unsigned", "repeated", "not_json", "frames"]
            .iter()
            .all(|reason| refused.get(*reason).is_some_and(|count| *count >= 1))
    });
    cluster.client(&["px", "s = psum(1)"]).ok();
    assert_eq!(cluster.client(&["pull", "s", "--json"]).ok().trim(), "[2,2]");
}
