//! A link to a registry far away: every byte arrives late, and each connection has a rate of its own.
//! `far LISTEN UPSTREAM ONE-WAY-MS MB-PER-SECOND`. A model in user space, without loss or congestion.
#![allow(clippy::print_stdout)]

use std::{env, error::Error, io, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};

/// Pieces of 64 KiB that are on their way: more than rate times delay, so that the window is never the limit.
const ON_THE_WAY: usize = 64;
const PIECE: usize = 64 << 10;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = env::args().skip(1).collect();
    let [listen, upstream, delay, rate] = words.as_slice() else {
        return Err("far LISTEN UPSTREAM ONE-WAY-MS MB-PER-SECOND".into());
    };
    let (delay, rate) = (Duration::from_millis(delay.parse()?), rate.parse::<f64>()? * 1e6);
    let listener = TcpListener::bind(listen.as_str()).await?;
    loop {
        let (near, _) = listener.accept().await?;
        let upstream = upstream.clone();
        tokio::spawn(async move {
            // The handshake takes a round trip.
            sleep(delay * 2).await;
            if let Ok(far) = TcpStream::connect(&upstream).await {
                let _ = (near.set_nodelay(true), far.set_nodelay(true));
                let ((a, b), (c, d)) = (near.into_split(), far.into_split());
                tokio::spawn(carry(a, d, delay, rate));
                tokio::spawn(carry(c, b, delay, rate));
            }
        });
    }
}

/// One direction: a piece leaves when the ones before it have, and arrives a delay later.
async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    delay: Duration,
    rate: f64,
) -> io::Result<()> {
    let (send, mut arrive) = mpsc::channel::<(Instant, Vec<u8>)>(ON_THE_WAY);
    tokio::spawn(async move {
        let mut free = Instant::now();
        loop {
            let mut piece = vec![0; PIECE];
            let Ok(read @ 1..) = from.read(&mut piece).await else { return };
            piece.truncate(read);
            free = free.max(Instant::now()) + Duration::from_secs_f64(read as f64 / rate);
            if send.send((free + delay, piece)).await.is_err() {
                return;
            }
        }
    });
    while let Some((when, piece)) = arrive.recv().await {
        sleep_until(when).await;
        to.write_all(&piece).await?;
    }
    to.shutdown().await
}
