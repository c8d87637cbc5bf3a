//! The parts of a pull, each alone: what the CPU needs at least for receiving, hashing and writing.
//!
//! `parts receive HOST:PORT CONNECTIONS [CERTIFICATE] < PATHS`, `parts sha256 MIB THREADS`, `parts write DIR MIB THREADS`.
//! Plain threads and large buffers, so that these are limits; the caller measures time and CPU of the whole process.

use std::{
    env,
    error::Error,
    fs::{File, OpenOptions, remove_file},
    io::{self, Read, Write},
    net::{IpAddr, TcpStream},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use rustix::fs::OFlags;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use sha2::{Digest, Sha256};

type Failure = Box<dyn Error + Send + Sync>;
const READ: usize = 256 << 10;
const BLOCK: usize = 4 << 20;
/// What `O_DIRECT` asks of addresses, on every disk of today.
const ALIGNED: usize = 4 << 10;

fn main() -> Result<(), Failure> {
    let words: Vec<String> = env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["receive", host, connections, tls @ ..] => receive(host, connections.parse()?, tls.first().copied()),
        ["sha256", mib, threads] => {
            let (blocks, threads) = (blocks(mib)?, threads.parse()?);
            in_threads(threads, |_| {
                let (block, mut hash) = (vec![7; BLOCK], Sha256::new());
                (0..blocks / threads).for_each(|_| hash.update(&block));
                std::hint::black_box(hash.finalize());
                Ok(())
            })
        }
        ["write", dir, mib, threads] => {
            let (blocks, threads) = (blocks(mib)?, threads.parse()?);
            in_threads(threads, |n| {
                let path = Path::new(dir).join(format!("part.{n}"));
                let written = write(&path, blocks / threads);
                remove_file(&path)?;
                Ok(written?)
            })
        }
        _ => Err(
            "parts receive HOST:PORT CONNECTIONS [CERTIFICATE] | sha256 MIB THREADS | write DIR MIB THREADS"
                .into(),
        ),
    }
}

fn blocks(mib: &str) -> Result<usize, Failure> {
    Ok((mib.parse::<usize>()? << 20) / BLOCK)
}

fn in_threads(threads: usize, work: impl Fn(usize) -> Result<(), Failure> + Sync) -> Result<(), Failure> {
    let work = &work;
    thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|n| scope.spawn(move || work(n))).collect();
        running.into_iter().try_for_each(|thread| thread.join().map_err(|_| "a thread panicked")?)
    })
}

fn write(path: &Path, blocks: usize) -> io::Result<()> {
    let open = |flags: OFlags| {
        let flags = flags.bits().cast_signed();
        OpenOptions::new().write(true).create(true).truncate(true).custom_flags(flags).open(path)
    };
    let mut file: File = open(OFlags::DIRECT).or_else(|_| open(OFlags::empty()))?;
    let room = vec![7; BLOCK + ALIGNED];
    let skip = room.as_ptr().align_offset(ALIGNED);
    for _ in 0..blocks {
        file.write_all(&room[skip..skip + BLOCK])?;
    }
    file.sync_data()
}

/// Fetches every path on standard input once and throws the bytes away.
fn receive(host: &str, connections: usize, certificate: Option<&str>) -> Result<(), Failure> {
    let tls = certificate.map(trusting).transpose()?;
    let paths: Vec<String> = io::stdin().lines().collect::<Result<_, _>>()?;
    let queue = Mutex::new(paths.into_iter());
    in_threads(connections, |_| {
        let socket = TcpStream::connect(host)?;
        socket.set_nodelay(true)?;
        let mut stream: Box<dyn Stream> = match &tls {
            Some(config) => {
                let address: IpAddr = host.rsplit_once(':').ok_or("HOST:PORT")?.0.parse()?;
                let name = ServerName::IpAddress(address.into());
                Box::new(StreamOwned::new(ClientConnection::new(Arc::clone(config), name)?, socket))
            }
            None => Box::new(socket),
        };
        let mut buffer = vec![0; READ];
        loop {
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(path) = next else { return Ok(()) };
            get(&mut *stream, host, &path, &mut buffer)?;
        }
    })
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

fn trusting(certificate: &str) -> Result<Arc<ClientConfig>, Failure> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate)?)?;
    Ok(Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()))
}

fn get(stream: &mut dyn Stream, host: &str, path: &str, buffer: &mut [u8]) -> Result<(), Failure> {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes())?;
    let mut filled = 0;
    let head = loop {
        filled += some(stream.read(&mut buffer[filled..])?)?;
        if let Some(end) = buffer[..filled].windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
    };
    let text = String::from_utf8_lossy(&buffer[..head]).to_ascii_lowercase();
    let length =
        text.lines().find_map(|line| line.strip_prefix("content-length:")).ok_or("no Content-Length")?;
    if !text.starts_with("http/1.1 200") {
        return Err(format!("{path}: {}", text.lines().next().unwrap_or_default()).into());
    }
    let mut left = length.trim().parse::<usize>()? - (filled - head);
    while left > 0 {
        let room = buffer.len().min(left);
        left -= some(stream.read(&mut buffer[..room])?)?;
    }
    Ok(())
}

fn some(read: usize) -> Result<usize, Failure> {
    if read == 0 { Err("the registry closed the connection".into()) } else { Ok(read) }
}
