//! The address at which a peer reaches a controller. One that listens on every interface says so in its connection file
//! (`*`), with its host's name (`location`) and all its addresses (`addresses`, an addition of ours). Which of them
//! leads there is known only to who wants to go: host names of login nodes often mean an outer network that compute
//! nodes cannot reach.

use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::time::Duration;

use protocol::connection_file::{Common, LocalMachine, disambiguate};

/// How long an address is tried. Within a machine room an answer takes milliseconds, and a firewall gives none.
const CONNECT_TIME: Duration = Duration::from_secs(2);

/// Addresses that are tried: hosts have a handful, and a broken file shall not keep us for long.
const ADDRESSES_MAX: usize = 16;

/// Where to connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    /// `tcp://10.1.2.3`
    pub interface: String,
    /// Every address that was tried and why it is none, if none answered.
    pub tried: Vec<String>,
}

/// This host's name.
pub fn hostname() -> String {
    nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default()
}

/// This host's addresses that others may reach: IPv4, of interfaces that are up, loopback left out.
pub fn own_addresses() -> Vec<String> {
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else { return Vec::new() };
    let mut found: Vec<String> = interfaces
        .filter(|interface| interface.flags.contains(nix::net::if_::InterfaceFlags::IFF_UP))
        .filter_map(|interface| Some(interface.address?.as_sockaddr_in()?.ip()))
        .filter(|address| !address.is_loopback())
        .map(|address| address.to_string())
        .collect();
    found.dedup();
    found.truncate(ADDRESSES_MAX);
    found
}

/// Chooses the interface to connect to from here. `location` may be another than the file's if the user knows better.
pub fn choose(file: &Common, location: &str) -> Reach {
    let resolved = resolve(location);
    let own = resolved.filter(|&address| is_own(address)).map(|address| address.to_string());
    let here = LocalMachine { hostname: hostname(), addresses: own.into_iter().collect() };
    let usual =
        disambiguate(&file.interface, location, &here, |_| resolved.map(|address| address.to_string()));
    let is_any = matches!(file.interface.as_str(), "tcp://*" | "tcp://0.0.0.0");
    let first = usual.strip_prefix("tcp://").unwrap_or_default();
    // Addresses that this machine has too come last: of virtual bridges, both have the same.
    let others = file.addresses.iter().filter(|address| *address != first);
    let (own, others): (Vec<&String>, Vec<&String>) = others.partition(|address| is_own_text(address));
    let all = std::iter::once(first.to_owned()).chain(others.into_iter().chain(own).cloned());
    let candidates: Vec<String> = all.collect();
    if !is_any || first.starts_with("127.") || candidates.len() == 1 {
        return Reach { interface: usual, tried: Vec::new() };
    }
    let mut tried = Vec::new();
    for address in candidates.into_iter().take(ADDRESSES_MAX) {
        match connect(&address, file.registration) {
            Ok(()) => return Reach { interface: format!("tcp://{address}"), tried: Vec::new() },
            Err(reason) => tried.push(format!("{address}:{} ({reason})", file.registration)),
        }
    }
    Reach { interface: usual, tried }
}

/// Whether a controller listens on the loopback of another machine only, where nobody here can reach it: its location
/// is elsewhere, and nothing (a tunnel, say) answers in its place.
pub fn is_loopback_of_another(file: &Common, location: &str) -> bool {
    let address = file.interface.strip_prefix("tcp://").unwrap_or_default();
    let is_loopback = address == "localhost" || address.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
    is_loopback && !is_here(location) && connect(address, file.registration).is_err()
}

/// Whether a controller of that location runs on this machine, as far as names tell.
pub fn is_here(location: &str) -> bool {
    location.is_empty() || location == hostname() || resolve(location).is_some_and(is_own)
}

fn connect(address: &str, port: u16) -> Result<(), String> {
    let addresses = (address, port).to_socket_addrs().map_err(|error| error.to_string())?;
    let address: SocketAddr = addresses.into_iter().next().ok_or("it has no address")?;
    TcpStream::connect_timeout(&address, CONNECT_TIME).map(drop).map_err(|error| error.to_string())
}

fn resolve(host: &str) -> Option<IpAddr> {
    if host.is_empty() {
        return None;
    }
    let found: Vec<IpAddr> =
        (host, 0).to_socket_addrs().ok()?.map(|address| address.ip()).filter(IpAddr::is_ipv4).collect();
    found.iter().find(|address| is_own(**address)).or(found.first()).copied()
}

fn is_own_text(address: &str) -> bool {
    address.parse().is_ok_and(is_own)
}

/// Whether an address is one of this machine's: only those can be bound.
fn is_own(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn file(interface: &str, location: &str, registration: u16, addresses: &[&str]) -> Common {
        let text = serde_json::json!({
            "interface": interface, "location": location, "registration": registration, "control": 1, "mux": 1,
            "task": 1, "iopub": 1, "addresses": addresses,
        });
        serde_json::from_value(text).expect("a connection file's part")
    }

    fn chosen(interface: &str, location: &str) -> String {
        choose(&file(interface, location, 1, &[]), location).interface
    }

    #[test]
    fn a_named_interface_is_used_as_it_is() {
        assert_eq!(chosen("tcp://10.1.2.3", "elsewhere"), "tcp://10.1.2.3");
    }

    #[test]
    fn a_controller_on_this_machine_is_reached_over_loopback() {
        assert_eq!(chosen("tcp://*", ""), "tcp://127.0.0.1");
        assert_eq!(chosen("tcp://0.0.0.0", &hostname()), "tcp://127.0.0.1");
        assert_eq!(chosen("tcp://0.0.0.0", "127.0.0.1"), "tcp://127.0.0.1");
    }

    #[test]
    fn a_controller_on_the_loopback_of_another_machine_is_told_from_a_tunnel_to_it() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let of = |location: &str| file("tcp://127.0.0.1", location, port, &[]);
        assert!(!is_loopback_of_another(&of("192.0.2.77"), "192.0.2.77"), "a tunnel answers");
        drop(listener);
        assert!(is_loopback_of_another(&of("192.0.2.77"), "192.0.2.77"));
        assert!(!is_loopback_of_another(&of(&hostname()), &hostname()));
    }

    #[test]
    fn the_address_that_answers_is_chosen_and_the_others_are_named_if_none_does() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        // Nobody has the first (RFC 5737), and 127.0.0.2 stands for an address of another machine.
        let found = choose(&file("tcp://*", "192.0.2.77", port, &["localhost"]), "192.0.2.77");
        assert_eq!(found, Reach { interface: "tcp://localhost".into(), tried: vec![] });
        drop(listener);
        let lost = choose(&file("tcp://*", "192.0.2.77", port, &["localhost"]), "192.0.2.77");
        assert_eq!(lost.interface, "tcp://192.0.2.77");
        assert_eq!(lost.tried.len(), 2, "{lost:?}");
        assert!(lost.tried[1].starts_with(&format!("localhost:{port} (Connection refused")), "{lost:?}");
    }
}
