//! Numbers that only one test may use at a time, also among test processes that run side by
//! side: numbers of engines, ports and blocks of ports. A claim is a locked file; the kernel
//! gives it back when the process ends.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Mutex;

use rustix::fs::{FlockOperation, flock};

/// Locks of this process, which are kept as long as it lives.
static HELD: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// Claims the first number of `range` that is nobody's and that `is_free` accepts.
pub fn claim(kind: &str, range: std::ops::Range<u16>, is_free: impl Fn(u16) -> bool) -> u16 {
    let folder = std::env::temp_dir().join("plimsoll-test-claims");
    std::fs::create_dir_all(&folder).unwrap();
    for number in range {
        let file = File::create(folder.join(format!("{kind}-{number}"))).unwrap();
        let ours = flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
        if ours && is_free(number) {
            HELD.lock().unwrap().push(file);
            return number;
        }
    }
    panic!("no {kind} is free: other test runs hold them all");
}

/// Ports on 127.0.0.0/8 that belong to one installation. All of them lie below the range from
/// which the kernel takes ports of its own.
#[derive(Debug, Clone, Copy)]
pub struct Block(u16);

impl Block {
    const PORTS_FOR_CONTAINERS: u16 = 60;
    const PORTS_FOR_BALANCER: u16 = 4;

    /// A block that nobody uses.
    pub fn claim() -> Self {
        Self(claim("block", 0..90, |number| Self(number).is_bindable()))
    }

    /// False where a run that has just ended isn't cleaned up yet.
    fn is_bindable(self) -> bool {
        let first = self.first_container_port();
        let published = (first..first + Self::PORTS_FOR_CONTAINERS)
            .flat_map(|port| [([127, 0, 0, 1], port), ([127, 0, 0, 2], port)]);
        let bound =
            (0..Self::PORTS_FOR_BALANCER).map(|nth| ([127, 0, 0, 1], self.balancer_port(nth)));
        published.chain(bound).all(|address| TcpListener::bind(SocketAddr::from(address)).is_ok())
    }

    /// The range that published ports come from, as a Host declares it.
    pub fn container_ports(self) -> String {
        let first = self.first_container_port();
        format!("{first}-{}", first + Self::PORTS_FOR_CONTAINERS - 1)
    }

    pub fn first_container_port(self) -> u16 {
        11_000 + self.0 * Self::PORTS_FOR_CONTAINERS
    }

    /// The `nth` port for a listener of the balancer.
    pub fn balancer_port(self, nth: u16) -> u16 {
        assert!(nth < Self::PORTS_FOR_BALANCER);
        17_000 + self.0 * Self::PORTS_FOR_BALANCER + nth
    }
}

/// A port on 127.0.0.1 that nobody listens on now and that is given to nobody else. The kernel
/// may give a port that it chose again as soon as it is closed, also to an outgoing connection.
pub fn free_port() -> u16 {
    claim("port", 18_000..20_000, |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok())
}
