//! `demo-ping`: ICMP echo (RFC 792), for machines without `ping`.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use socket2::{Domain, Protocol, Socket, Type};

/// What `demo-ping` takes.
#[derive(Debug, Args)]
pub(crate) struct PingArgs {
    /// How many requests
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    count: u16,
    /// Bytes of data in each
    #[arg(long, default_value_t = 56)]
    size: u16,
    /// Whom to ask
    target: Ipv4Addr,
}

/// How long a reply may take.
const LIMIT: Duration = Duration::from_secs(2);

const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST: u8 = 8;

/// Prints a line for each request.
pub(crate) fn run(args: &PingArgs, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))
        .context("cannot open a raw socket: run this as root")?;
    socket.connect(&SocketAddr::from((args.target, 0)).into())?;
    let identifier = (std::process::id() & 0xffff) as u16;
    let mut received = 0;
    for sequence in 1..=args.count {
        let request = echo_request(identifier, sequence, usize::from(args.size));
        let sent = Instant::now();
        socket.send(&request)?;
        match await_reply(&socket, args.target, &request, sent)? {
            Some(took) => {
                received += 1;
                writeln!(
                    out,
                    "{} bytes from {}: icmp_seq={sequence} time={:.3} ms",
                    request.len(),
                    args.target,
                    took.as_secs_f64() * 1e3
                )?;
            }
            None => writeln!(out, "no answer to icmp_seq={sequence}")?,
        }
    }
    if received < args.count {
        bail!("{received} of {} requests were answered", args.count);
    }
    Ok(ExitCode::SUCCESS)
}

fn echo_request(identifier: u16, sequence: u16, size: usize) -> Vec<u8> {
    let mut packet = vec![ECHO_REQUEST, 0, 0, 0];
    packet.extend(identifier.to_be_bytes());
    packet.extend(sequence.to_be_bytes());
    packet.extend((0..size).map(|i| (i & 0xff) as u8));
    let sum = checksum(&packet);
    packet[2..4].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// Waits for the reply to this very request; the socket hears everybody's.
fn await_reply(
    mut socket: &Socket,
    from: Ipv4Addr,
    request: &[u8],
    sent: Instant,
) -> anyhow::Result<Option<Duration>> {
    let mut buffer = vec![0; 65_535];
    loop {
        let left = LIMIT.saturating_sub(sent.elapsed());
        if left.is_zero() {
            return Ok(None);
        }
        socket.set_read_timeout(Some(left))?;
        let length = match socket.read(&mut buffer) {
            Ok(length) => length,
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return Ok(None),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e.into()),
        };
        if is_reply(&buffer[..length], from, request) {
            return Ok(Some(sent.elapsed()));
        }
    }
}

/// A raw socket hands over the IPv4 header too (raw(7)).
fn is_reply(packet: &[u8], from: Ipv4Addr, request: &[u8]) -> bool {
    let Some(first) = packet.first() else {
        return false;
    };
    let header = usize::from(first & 0x0f) * 4;
    let (Some(source), Some(icmp)) = (packet.get(12..16), packet.get(header..)) else {
        return false;
    };
    source == from.octets()
        && icmp.first() == Some(&ECHO_REPLY)
        && icmp.get(4..) == request.get(4..)
        && checksum(icmp) == 0
}

/// RFC 1071 section 1.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = 0;
    for pair in bytes.chunks(2) {
        let low = pair.get(1).copied().unwrap_or(0);
        sum += u32::from(u16::from_be_bytes([pair[0], low]));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc792_a_reply_is_the_request_with_another_type() {
        let from = Ipv4Addr::new(10, 0, 0, 5);
        let request = echo_request(7, 1, 57);
        assert_eq!(
            checksum(&request),
            0,
            "the checksum of a whole packet is zero"
        );
        let mut icmp = request.clone();
        icmp[0] = ECHO_REPLY;
        icmp[2..4].copy_from_slice(&[0, 0]);
        let sum = checksum(&icmp);
        icmp[2..4].copy_from_slice(&sum.to_be_bytes());
        let mut packet = vec![
            0x45, 0, 0, 0, 0, 0, 0, 0, 64, 1, 0, 0, 10, 0, 0, 5, 10, 0, 0, 6,
        ];
        packet.extend(&icmp);
        assert!(is_reply(&packet, from, &request));
        assert!(!is_reply(&packet, Ipv4Addr::LOCALHOST, &request));
        assert!(!is_reply(&packet, from, &echo_request(7, 2, 57)));
        *packet.last_mut().unwrap() ^= 1;
        assert!(!is_reply(&packet, from, &request), "damaged data was taken");
        assert!(!is_reply(&[0x4f], from, &request));
        assert!(!is_reply(&[], from, &request));
    }
}
