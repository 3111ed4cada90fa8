//! A door before a server: connections pass while a path is there, and break when it is not.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::thread::spawn;

/// Opens a port that leads to `to` while `door` is there; gives it.
pub(crate) fn open(door: PathBuf, to: SocketAddr) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    spawn(move || {
        for came in listener.incoming().filter_map(Result::ok) {
            if !door.exists() {
                continue;
            }
            let Ok(there) = TcpStream::connect(to) else {
                continue;
            };
            let copies = (came.try_clone().unwrap(), there.try_clone().unwrap());
            let (one, two) = (door.clone(), door.clone());
            spawn(move || pass(came, there, &one));
            spawn(move || pass(copies.1, copies.0, &two));
        }
    });
    port
}

fn pass(mut from: TcpStream, mut to: TcpStream, door: &Path) {
    let mut part = [0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut part) {
        if !door.exists() || to.write_all(&part[..read]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
