//! A gate before a registry: connections go through it byte by byte, so that a pull can be caught in the middle
//! without any timing. It can also be shut, and then refuses connections as a stopped server does.

use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

pub struct Gate {
    pub address: SocketAddr,
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    open: bool,
    server: Option<SocketAddr>,
    /// Bytes that each connection may bring to the client.
    limit: Option<u64>,
    held: usize,
    connections: Vec<TcpStream>,
}

impl Gate {
    /// Open, at a free port of this address.
    pub fn new(address: SocketAddr, server: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let gate = Self { address: listener.local_addr().unwrap(), inner: Arc::default() };
        gate.serve(listener, server);
        gate
    }

    /// The same port again, before a server that may have moved.
    pub fn open(&self, server: SocketAddr) {
        self.serve(TcpListener::bind(self.address).unwrap(), server);
    }

    fn serve(&self, listener: TcpListener, server: SocketAddr) {
        let mut state = self.inner.lock();
        state.open = true;
        state.server = Some(server);
        let inner = self.inner.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                let Some(server) = inner.admit(client.as_ref().ok()) else { break };
                let inner = inner.clone();
                thread::spawn(move || client.and_then(|client| inner.connect(client, server)));
            }
        });
    }

    /// From now on connections are refused, and those that are open end.
    pub fn shut(&self) {
        let mut state = self.inner.lock();
        state.open = false;
        state.limit = None;
        for connection in state.connections.drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
        self.inner.changed.notify_all();
        drop(state);
        // Wakes the listener, which then closes; until it did, connections are still taken and closed.
        while TcpStream::connect(self.address).is_ok() {
            thread::yield_now();
        }
    }

    /// Each connection brings this many bytes more or less, and then nothing.
    pub fn hold_after(&self, bytes: u64) {
        self.inner.lock().limit = Some(bytes);
    }

    pub fn release(&self) {
        self.inner.lock().limit = None;
        self.inner.changed.notify_all();
    }

    /// Until a connection has brought all it may.
    pub fn wait_until_held(&self) {
        let patience = Duration::from_mins(5);
        let state = self.inner.lock();
        let (_state, waited) =
            self.inner.changed.wait_timeout_while(state, patience, |state| state.held == 0).unwrap();
        assert!(!waited.timed_out(), "nothing was pulled as far as the gate lets it");
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        if self.inner.lock().open {
            self.shut();
        }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where to, unless it is shut.
    fn admit(&self, client: Option<&TcpStream>) -> Option<SocketAddr> {
        let mut state = self.lock();
        state.connections.extend(client.and_then(|client| client.try_clone().ok()));
        state.server.filter(|_| state.open)
    }

    fn connect(&self, mut client: TcpStream, server: SocketAddr) -> io::Result<()> {
        let mut server = TcpStream::connect(server)?;
        let (mut from_client, mut to_server) = (client.try_clone()?, server.try_clone()?);
        thread::spawn(move || {
            let _ = io::copy(&mut from_client, &mut to_server);
            let _ = to_server.shutdown(Shutdown::Write);
        });
        let mut sent = 0;
        let mut buffer = vec![0; 64 * 1024];
        let end = loop {
            match server.read(&mut buffer) {
                Ok(0) => break Ok(()),
                Ok(n) => {
                    self.pass(sent);
                    sent += n as u64;
                    if let Err(error) = client.write_all(&buffer[..n]) {
                        break Err(error);
                    }
                }
                Err(error) => break Err(error),
            }
        };
        let _ = client.shutdown(Shutdown::Both);
        let _ = server.shutdown(Shutdown::Both);
        end
    }

    fn pass(&self, sent: u64) {
        let held = |state: &State| state.limit.is_some_and(|limit| sent >= limit);
        let mut state = self.lock();
        if !held(&state) {
            return;
        }
        // Said once: connections that are held must not wake each other for ever.
        state.held += 1;
        self.changed.notify_all();
        while held(&state) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.held -= 1;
    }
}
