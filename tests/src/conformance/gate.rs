//! A gate before a server of this machine: an address of its own, behind which nobody is while a door is away.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::thread;

/// Opens a gate, which lasts as long as this process.
pub(super) fn open(door: PathBuf, server: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for link in listener.incoming().flatten() {
            // Who comes while the door is away is sent away.
            let Ok(server) = TcpStream::connect(server) else {
                continue;
            };
            if door.exists() {
                carry(&link, &server);
                carry(&server, &link);
            }
        }
    });
    address
}

/// Carries what comes on one link to the other, to its end.
fn carry(from: &TcpStream, to: &TcpStream) {
    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
    thread::spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
}
