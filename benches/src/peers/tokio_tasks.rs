//! A tokio task for each connection, on the multi-threaded runtime with its defaults.

use super::Mode;
use anyhow::Result;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub(super) fn serve(listener: std::net::TcpListener, mode: Mode, buffer: usize) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        // The accept loop is a task of its own, so that it runs on the workers, as tokio advises.
        tokio::spawn(accept(listener, mode, buffer)).await?;
        Ok(())
    })
}

async fn accept(listener: TcpListener, mode: Mode, buffer: usize) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(converse(stream, mode, buffer))),
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn converse(mut stream: TcpStream, mode: Mode, buffer: usize) -> io::Result<()> {
    let mut buffer = vec![0; buffer];
    loop {
        let n = stream.read(&mut buffer).await?;
        if n == 0 {
            return Ok(());
        }
        match mode {
            Mode::Sleep(amount) => tokio::time::sleep(amount).await,
            other => other.work(),
        }
        stream.write_all(&buffer[..n]).await?;
    }
}
