//! `demo-dns`: one question to one server, over UDP or TCP.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use hickory_proto::op::{Message, MessageType, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};

/// What `demo-dns` takes.
#[derive(Debug, Args)]
pub(crate) struct DnsArgs {
    /// Server to ask
    #[arg(long, default_value = "127.0.0.11:53")]
    server: SocketAddr,
    /// Ask over TCP
    #[arg(long)]
    tcp: bool,
    /// Name to look up
    name: String,
}

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(2);

/// What a server says about a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Its IPv4 addresses, sorted.
    Addresses(Vec<IpAddr>),
    /// There is no such name.
    NoSuchName,
}

/// Asks for the IPv4 addresses of a name, in the namespace of this thread.
///
/// # Errors
/// No name, no answer within two seconds, or one that is no answer to this question.
pub fn lookup(server: SocketAddr, name: &str, tcp: bool) -> anyhow::Result<Found> {
    let mut question = Message::query();
    question.metadata.recursion_desired = true;
    let wanted = Name::from_ascii(name).with_context(|| format!("{name:?} is no name"))?;
    question.add_query(Query::query(wanted, RecordType::A));
    let bytes = question.to_vec()?;
    let exchange = if tcp { over_tcp } else { over_udp };
    let bytes = exchange(server, &bytes)
        .with_context(|| format!("no answer from {server} about {name}"))?;
    let answer = Message::from_vec(&bytes)
        .with_context(|| format!("{server} answered with something else than DNS"))?;
    if answer.metadata.id != question.metadata.id
        || answer.metadata.message_type != MessageType::Response
    {
        bail!("{server} answered another question");
    }
    match answer.metadata.response_code {
        ResponseCode::NoError => {}
        ResponseCode::NXDomain => return Ok(Found::NoSuchName),
        code => bail!("{server} answered {code} about {name}"),
    }
    let mut addresses: Vec<IpAddr> = answer
        .answers
        .iter()
        .filter_map(|record| match &record.data {
            RData::A(a) => Some(IpAddr::V4(a.0)),
            _ => None,
        })
        .collect();
    addresses.sort();
    Ok(Found::Addresses(addresses))
}

fn over_udp(server: SocketAddr, question: &[u8]) -> std::io::Result<Vec<u8>> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(LIMIT))?;
    socket.send(question)?;
    let mut answer = vec![0; 65_535];
    let length = socket.recv(&mut answer)?;
    answer.truncate(length);
    Ok(answer)
}

/// RFC 1035 section 4.2.2: two bytes of length before each message.
fn over_tcp(server: SocketAddr, question: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&server, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    let length = u16::try_from(question.len()).map_err(std::io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), question].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

/// Prints one address in each line.
pub(crate) fn run(args: &DnsArgs, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    match lookup(args.server, &args.name, args.tcp)? {
        Found::Addresses(addresses) => {
            for address in addresses {
                writeln!(out, "{address}")?;
            }
        }
        Found::NoSuchName => bail!("{}: no such name", args.name),
    }
    Ok(ExitCode::SUCCESS)
}
