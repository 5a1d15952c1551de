//! Encryption: who knows the server's public key is in, nobody else.

use transport::curve::{Keypair, PublicKey};
use transport::monitor::{HandshakeFailure, Monitor, MonitorEvent};
use transport::{Curve, Socket, SocketKind, SocketOptions, TransportError};

use crate::support::*;

#[test]
fn a_client_with_the_servers_key_is_served() {
    let context = context();
    let server = Keypair::generate().unwrap();
    let (router, endpoint) = bound(&context, SocketKind::Router, &serving(&server));
    let dealer = connected(&context, SocketKind::Dealer, &trusting(&server.public), &endpoint);

    send(&dealer, &parts(&["secret"]));
    let request = receive(&router);
    assert_eq!(request.parts[1], "secret");
    send(&router, &request.parts);
    assert_eq!(receive(&dealer).parts, parts(&["secret"]));
}

#[test]
fn a_client_with_another_servers_key_is_refused() {
    let (router, monitor, failure) = refused_by_server(&trusting(&Keypair::generate().unwrap().public));

    assert!(matches!(failure, HandshakeFailure::NoDetail | HandshakeFailure::Protocol), "{failure:?}");
    assert!(router.receive().unwrap().is_none());
    drop(monitor);
}

#[test]
fn a_client_without_encryption_is_refused() {
    let (router, monitor, failure) = refused_by_server(&defaults());

    assert_eq!(failure, HandshakeFailure::Protocol);
    assert!(router.receive().unwrap().is_none());
    drop(monitor);
}

#[test]
fn keys_survive_being_written_and_read() {
    let pair = Keypair::generate().unwrap();

    let read = Keypair::parse(pair.public.as_str(), pair.secret.expose()).unwrap();

    assert_eq!(read.public, pair.public);
    assert_eq!(read.secret.expose(), pair.secret.expose());
    assert!(!format!("{pair:?}").contains(pair.secret.expose()));
}

#[test]
fn text_that_is_no_key_is_refused_without_being_shown() {
    for text in ["", "short", &"x".repeat(41), &"\"".repeat(40)] {
        let error = PublicKey::parse(text).unwrap_err();
        assert!(matches!(error, TransportError::CurveKey { found } if found == text.len()));
        assert!(text.is_empty() || !error.to_string().contains(text));
    }
}

fn serving(keys: &Keypair) -> SocketOptions {
    SocketOptions { curve: Curve::Server(keys.clone()), ..defaults() }
}

fn trusting(server: &PublicKey) -> SocketOptions {
    let own = Keypair::generate().unwrap();
    SocketOptions { curve: Curve::Client { server: server.clone(), own }, ..defaults() }
}

fn refused_by_server(client: &SocketOptions) -> (Socket, Monitor, HandshakeFailure) {
    let context = context();
    let router = open(&context, SocketKind::Router, &serving(&Keypair::generate().unwrap()));
    let monitor = Monitor::attach(&context, &router).unwrap();
    let endpoint = router.bind(TCP).unwrap();
    let dealer = connected(&context, SocketKind::Dealer, client, &endpoint);
    send(&dealer, &parts(&["let me in"]));
    let failure = event(&monitor, |event| match event {
        MonitorEvent::HandshakeFailed { reason, .. } => Some(reason),
        _ => None,
    });
    (router, monitor, failure)
}
