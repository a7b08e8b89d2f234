//! Packets between namespaces that a test made.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use crate::node::Namespace;

const PATIENCE: Duration = Duration::from_secs(3);

impl Namespace {
    /// One echo request to `to` is answered.
    pub fn pings(&self, to: &str) -> bool {
        self.pings_within(to, PATIENCE.as_secs())
    }

    /// The same, with another patience in seconds.
    pub fn pings_within(&self, to: &str, seconds: u64) -> bool {
        self.tries("ping", &["-n", "-c", "1", "-W", &seconds.to_string(), to])
    }

    /// A TCP connection to a listener of `server` at `address` carries bytes both ways; the client's address as the
    /// server saw it.
    #[track_caller]
    pub fn tcp(&self, server: &Namespace, address: &str) -> Option<IpAddr> {
        let address: IpAddr = address.parse().unwrap();
        let listener = server
            .enter(|| TcpListener::bind(SocketAddr::new(address, 0)))
            .ok()?;
        let at = listener.local_addr().unwrap();
        let serve = thread::spawn(move || {
            let (mut stream, peer) = listener.accept()?;
            stream.set_read_timeout(Some(PATIENCE))?;
            let mut word = [0; 4];
            stream.read_exact(&mut word)?;
            stream.write_all(&word)?;
            Ok::<_, std::io::Error>(peer.ip())
        });
        self.enter(|| {
            let mut stream = TcpStream::connect_timeout(&at, PATIENCE).ok()?;
            stream.set_read_timeout(Some(PATIENCE)).ok()?;
            stream.write_all(b"ping").ok()?;
            let mut word = [0; 4];
            stream.read_exact(&mut word).ok()?;
            (&word == b"ping").then_some(())
        })?;
        serve.join().unwrap().ok()
    }

    /// A datagram to a socket of `server` at `address` is answered; the client's address as the server saw it.
    #[track_caller]
    pub fn udp(&self, server: &Namespace, address: &str) -> Option<IpAddr> {
        let address: IpAddr = address.parse().unwrap();
        let open = |at: SocketAddr| -> Option<UdpSocket> {
            let socket = UdpSocket::bind(at).ok()?;
            socket.set_read_timeout(Some(PATIENCE)).ok()?;
            Some(socket)
        };
        let answering = server.enter(|| open(SocketAddr::new(address, 0)))?;
        let any = if address.is_ipv4() {
            "0.0.0.0:0"
        } else {
            "[::]:0"
        };
        let asking = self.enter(|| open(any.parse().unwrap()))?;
        asking
            .send_to(b"ping", answering.local_addr().unwrap())
            .ok()?;
        let mut word = [0; 4];
        let (_, peer) = answering.recv_from(&mut word).ok()?;
        answering.send_to(&word, peer).ok()?;
        asking.recv_from(&mut word).ok()?;
        Some(peer.ip())
    }
}
