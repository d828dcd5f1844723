//! Whom the kernel's IPsec policies are about (`ip xfrm policy`).

use std::io;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST};
use netlink_sys::protocols::NETLINK_XFRM;
use netlink_sys::{Socket, SocketAddr};

// Of `linux/xfrm.h`.
const NEW_POLICY: u16 = 0x13;
const GET_POLICY: u16 = 0x15;
const POLICY_OUT: u8 = 1;

// Of `linux/netlink.h`.
const HEADER: usize = 16;
const ERROR: u16 = 2;
const DONE: u16 = 3;

// Places in `struct xfrm_userpolicy_info`, which begins with a `struct xfrm_selector`.
const DESTINATION: usize = 0;
const FAMILY: usize = 40;
const PREFIX: usize = 42;
const DIRECTION: usize = 160;

/// IPv4 destinations for whose packets the calling thread's namespace has an IPsec policy, whatever it
/// says: what is sent past the kernel's own output would be sent past it, too.
///
/// # Errors
/// `EPERM` without `CAP_NET_ADMIN`; nobody knows then.
pub fn protected_destinations() -> io::Result<Vec<Ipv4Net>> {
    let mut socket = match Socket::new(NETLINK_XFRM) {
        // A kernel without IPsec.
        Err(error) if error.raw_os_error() == Some(libc::EPROTONOSUPPORT) => return Ok(Vec::new()),
        socket => socket?,
    };
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&request(), 0)?;
    let mut found = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let len = match socket.recv(&mut &mut buffer[..], 0) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            len => len?,
        };
        if read(&buffer[..len], &mut found)? {
            return Ok(found);
        }
    }
}

/// Asks for all policies.
fn request() -> [u8; HEADER] {
    let mut message = [0; HEADER];
    message[..4].copy_from_slice(&(HEADER as u32).to_ne_bytes());
    message[4..6].copy_from_slice(&GET_POLICY.to_ne_bytes());
    message[6..8].copy_from_slice(&(NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    message
}

/// Reads the messages of one answer; true when there are no more.
fn read(mut bytes: &[u8], found: &mut Vec<Ipv4Net>) -> io::Result<bool> {
    while let Some((kind, body, rest)) = split(bytes) {
        bytes = rest;
        match kind {
            NEW_POLICY => found.extend(destination(body)),
            ERROR => {
                let errno = body
                    .first_chunk::<4>()
                    .map_or(0, |n| i32::from_ne_bytes(*n));
                return match errno {
                    0 => Ok(true),
                    errno => Err(io::Error::from_raw_os_error(-errno)),
                };
            }
            DONE => return Ok(true),
            _ => {}
        }
    }
    Ok(false)
}

/// The kind and the body of the first message, and what comes behind it.
fn split(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let len = u32::from_ne_bytes(*bytes.first_chunk::<4>()?) as usize;
    let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk::<2>()?);
    let body = bytes.get(HEADER..len)?;
    let next = len.next_multiple_of(4).min(bytes.len());
    Some((kind, body, &bytes[next..]))
}

/// Whom a policy is about; none where it is not one of packets of IPv4 that are sent.
fn destination(policy: &[u8]) -> Option<Ipv4Net> {
    if *policy.get(DIRECTION)? != POLICY_OUT {
        return None;
    }
    let family = u16::from_ne_bytes(*policy.get(FAMILY..)?.first_chunk::<2>()?);
    match i32::from(family) {
        libc::AF_INET => {
            let address = Ipv4Addr::from(*policy.get(DESTINATION..)?.first_chunk::<4>()?);
            let prefix = *policy.get(PREFIX)?;
            Ipv4Net::new(address, prefix.min(32)).ok()
        }
        libc::AF_UNSPEC => Some(Ipv4Net::default()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Ipv4Net {
        text.parse().unwrap()
    }

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut message = request().to_vec();
        message[..4].copy_from_slice(&((HEADER + body.len()) as u32).to_ne_bytes());
        message[4..6].copy_from_slice(&kind.to_ne_bytes());
        message.extend(body);
        message.resize(message.len().next_multiple_of(4), 0);
        message
    }

    fn policy(direction: u8, family: i32, destination: [u8; 4], prefix: u8) -> Vec<u8> {
        let mut policy = vec![0; 168];
        policy[..4].copy_from_slice(&destination);
        policy[FAMILY..FAMILY + 2].copy_from_slice(&(family as u16).to_ne_bytes());
        policy[PREFIX] = prefix;
        policy[DIRECTION] = direction;
        policy
    }

    #[test]
    fn policies_say_whom_they_are_about() {
        let mut answer = Vec::new();
        for (direction, family, host) in [
            (POLICY_OUT, libc::AF_INET, 2),
            (0, libc::AF_INET, 3),
            (POLICY_OUT, libc::AF_INET6, 4),
        ] {
            let policy = policy(direction, family, [192, 0, 2, host], 32);
            answer.extend(message(NEW_POLICY, &policy));
        }
        let mut found = Vec::new();
        assert!(!read(&answer, &mut found).unwrap(), "there may be more");
        assert_eq!(found, [net("192.0.2.2/32")]);
        let any = policy(POLICY_OUT, libc::AF_UNSPEC, [0; 4], 0);
        let answer = [message(NEW_POLICY, &any), message(DONE, &[0; 4])].concat();
        assert!(read(&answer, &mut found).unwrap());
        assert_eq!(found[1], net("0.0.0.0/0"));
        let refused = message(ERROR, &(-libc::EPERM).to_ne_bytes());
        let error = read(&refused, &mut found).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EPERM));
        // Cut short.
        assert!(!read(&refused[..10], &mut found).unwrap());
    }

    #[test]
    fn a_new_namespace_protects_nobody() {
        let netns = crate::netns::Netns::create_anonymous().unwrap();
        let found = netns.run_in(protected_destinations).unwrap();
        assert!(found.unwrap().is_empty());
    }
}
