//! A real HAProxy in a folder of its own, run by Plimsoll, with real web servers behind it.

use std::any::Any;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use plimsoll::model::{BackendName, BalancerRun, ServerName};
use plimsoll::proxy::Proxy;
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::haproxy::{Bed, WebServer, ask, free_address, signal, wait_for};
use crate::proxy_lab::{Damage, Hand, ProxyLab, Victim};

pub struct RealProxy {
    bed: Bed,
    webs: Mutex<BTreeMap<SocketAddr, WebServer>>,
    tunnels: Mutex<Vec<TcpStream>>,
}

impl RealProxy {
    pub fn new() -> Self {
        Self { bed: Bed::managed(), webs: Mutex::default(), tunnels: Mutex::default() }
    }

    async fn tell(&self, words: &str) -> String {
        ask(&self.bed.path("runtime.sock"), words).await
    }

    fn keep(&self, web: WebServer) -> SocketAddr {
        let address = web.address;
        self.webs.lock().unwrap_or_else(PoisonError::into_inner).insert(address, web);
        address
    }
}

#[async_trait]
impl ProxyLab for RealProxy {
    fn proxy(&self) -> &dyn Proxy {
        &self.bed.proxy
    }

    fn another(&self) -> Box<dyn Proxy> {
        Box::new(Bed::adapter(self.bed.folder.path(), BalancerRun::Managed))
    }

    fn listens_at(&self) -> (SocketAddr, SocketAddr) {
        (self.bed.web, self.bed.stats)
    }

    fn free_address(&self) -> SocketAddr {
        free_address()
    }

    async fn hold(&self, address: SocketAddr) -> Box<dyn Any + Send> {
        let mut listener = None;
        wait_for("a free address", || {
            listener = std::net::TcpListener::bind(address).ok();
            let is_there = listener.is_some();
            async move { is_there }
        })
        .await;
        Box::new(listener)
    }

    async fn begin_web(&self) -> SocketAddr {
        self.keep(WebServer::start("web").await)
    }

    async fn end_web(&self, address: SocketAddr) {
        self.webs.lock().unwrap_or_else(PoisonError::into_inner).remove(&address);
    }

    async fn begin_web_again(&self, address: SocketAddr) {
        self.keep(WebServer::start_again("web", address).await);
    }

    async fn by_hand(&self, backend: &BackendName, server: &ServerName, hand: Hand) {
        let path = format!("{backend}/{server}");
        match hand {
            Hand::Weigh(weight) => {
                self.tell(&format!("set server {path} weight {weight}")).await;
            }
            Hand::Drain => {
                self.tell(&format!("set server {path} state drain")).await;
            }
            Hand::Maintain => {
                self.tell(&format!("set server {path} state maint")).await;
            }
            Hand::Delete => {
                self.tell(&format!("set server {path} state maint")).await;
                wait_for("the removal", || async {
                    self.tell(&format!("del server {path}")).await.contains("deleted")
                })
                .await;
            }
            Hand::Add(address, weight) => {
                self.tell(&format!("add server {path} {address} weight {weight} check")).await;
                self.tell(&format!("enable server {path};enable health {path}")).await;
            }
        }
    }

    async fn damage(&self, damage: Damage) {
        let (path, whole) = (self.bed.path("haproxy.cfg"), self.bed.read("haproxy.cfg"));
        match damage {
            Damage::Edited => std::fs::write(path, format!("{whole}# mine\n")).unwrap(),
            Damage::Cut => {
                let end = whole.find("    server ").unwrap();
                std::fs::write(path, &whole[..end]).unwrap();
            }
            Damage::Foreign => std::fs::write(path, "not of HAProxy\n").unwrap(),
            Damage::Gone => std::fs::remove_file(path).unwrap(),
        }
    }

    async fn reload_by_hand(&self) {
        let before = self.generation().await;
        signal(self.bed.master_pid(), Signal::USR2);
        wait_for("a new worker", || async { self.generation().await != before }).await;
    }

    async fn kill(&self, victim: Victim) {
        let workers = self.bed.worker_pids().await;
        if victim != Victim::Worker {
            signal(self.bed.master_pid(), Signal::KILL);
        }
        if victim != Victim::Master {
            workers.into_iter().for_each(|pid| signal(pid, Signal::KILL));
        }
        wait_for("down", || async { self.bed.is_down().await }).await;
    }

    async fn freeze(&self) {
        let worker = self.bed.worker_pids().await[0];
        signal(worker, Signal::STOP);
        // Each of its threads stops when it is next to run.
        wait_for("the stop", || async move {
            let threads = std::fs::read_dir(format!("/proc/{worker}/task")).unwrap().flatten();
            let mut states = threads.map(|it| std::fs::read_to_string(it.path().join("stat")));
            states.all(|state| state.is_ok_and(|state| state.contains(") T ")))
        })
        .await;
    }

    async fn thaw(&self) {
        signal(self.bed.worker_pids().await[0], Signal::CONT);
    }

    async fn generation(&self) -> u64 {
        let newest = self.bed.worker_pids().await.first().copied();
        newest.map_or(0, i32::unsigned_abs).into()
    }

    async fn open_tunnel(&self, _: &BackendName, _: &ServerName) {
        let mut tunnel = TcpStream::connect(self.bed.web).await.unwrap();
        let request = "GET /ws HTTP/1.1\r\nHost: www.example.com\r\nConnection: Upgrade\r\n\
            Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
            Sec-WebSocket-Version: 13\r\n\r\n";
        tunnel.write_all(request.as_bytes()).await.unwrap();
        let mut buffer = [0; 1024];
        let count = tunnel.read(&mut buffer).await.unwrap();
        assert!(buffer[..count].starts_with(b"HTTP/1.1 101"), "no tunnel");
        self.tunnels.lock().unwrap_or_else(PoisonError::into_inner).push(tunnel);
    }
}
