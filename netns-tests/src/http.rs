//! A small HTTP client whose sockets are made in namespaces.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use weft_sys::netns::Netns;

/// A connection that stays open after its first answer.
#[derive(Debug)]
pub struct Held {
    stream: TcpStream,
    /// Body of the answer.
    pub answer: String,
}

impl Held {
    /// Asks again on the same connection.
    ///
    /// # Errors
    /// The connection broke, or the answer is not `200`.
    pub fn again(&mut self) -> io::Result<()> {
        self.answer = exchange(&self.stream, "/")?;
        Ok(())
    }
}

/// Connects from inside a namespace; each later step on the connection has the same patience.
///
/// # Errors
/// Nobody accepts in time.
pub fn connect(netns: &Netns, to: SocketAddr, patience: Duration) -> io::Result<TcpStream> {
    let stream = netns.run_in(|| TcpStream::connect_timeout(&to, patience))??;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    Ok(stream)
}

/// Asks for `/` from inside a namespace, once, on a connection of its own.
///
/// # Errors
/// No connection, no whole answer, or not `200`, each step within `patience`.
pub fn ask(netns: &Netns, to: SocketAddr, patience: Duration) -> io::Result<String> {
    ask_on(&connect(netns, to, patience)?)
}

/// Asks for `/` on a connection.
///
/// # Errors
/// No whole answer, or not `200`.
pub fn ask_on(stream: &TcpStream) -> io::Result<String> {
    exchange(stream, "/")
}

/// Asks for `path`, from an address of the namespace.
///
/// # Errors
/// As [`ask`].
pub fn ask_from(netns: &Netns, from: IpAddr, to: SocketAddr, path: &str) -> io::Result<String> {
    exchange(&connect_from(netns, SocketAddr::new(from, 0), to)?, path)
}

/// As [`ask`], with the patience of a person: 5 s.
///
/// # Errors
/// As [`ask`].
pub fn get(netns: &Netns, to: SocketAddr) -> io::Result<String> {
    ask(netns, to, Duration::from_secs(5))
}

/// As [`get`], and keeps the connection.
///
/// # Errors
/// As [`ask`].
pub fn hold(netns: &Netns, to: SocketAddr) -> io::Result<Held> {
    let stream = connect(netns, to, Duration::from_secs(5))?;
    let answer = exchange(&stream, "/")?;
    Ok(Held { stream, answer })
}

/// As [`hold`], from a port of the client that other connections may have too.
///
/// # Errors
/// As [`ask`].
pub fn hold_from(netns: &Netns, port: u16, to: SocketAddr) -> io::Result<Held> {
    let any = match to.ip() {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let stream = connect_from(netns, SocketAddr::new(any, port), to)?;
    let answer = exchange(&stream, "/")?;
    Ok(Held { stream, answer })
}

/// Connects from an address, and from a port that other connections may have too.
fn connect_from(netns: &Netns, from: SocketAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let patience = Duration::from_secs(5);
    let stream = netns.run_in(|| {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&from.into())?;
        socket.connect_timeout(&to.into(), patience)?;
        Ok::<_, io::Error>(TcpStream::from(socket))
    })??;
    stream.set_read_timeout(Some(patience))?;
    Ok(stream)
}

fn exchange(mut stream: &TcpStream, path: &str) -> io::Result<String> {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n").as_bytes())?;
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if line.split(' ').nth(1) != Some("200") {
        return Err(io::Error::other(format!("the answer begins with {line:?}")));
    }
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let header = line.trim_end().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    String::from_utf8(body).map_err(io::Error::other)
}
