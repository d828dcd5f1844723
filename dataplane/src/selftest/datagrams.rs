//! `UDP_SEGMENT` and `UDP_GRO` over loopback.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use weft_sys::netlink::Netlink;
use weft_sys::udp::{RecvBatch, SendBatch, VxlanSocket};

use super::{Trouble, pattern, wait_for};

/// Segments of a train. All alike: Linux 7.0 and 7.1 spoil the headers of exactly such trains.
const SEGMENTS: usize = 4;
const SEGMENT_LEN: usize = 1200;
const SEGMENT_LEN_U16: u16 = 1200;

fn loopback() -> Result<SocketAddr, Trouble> {
    let up = Netlink::open().and_then(|mut links| links.set_up("lo", true));
    up.map_err(Trouble::no_test)?;
    Ok((Ipv4Addr::LOCALHOST, 0).into())
}

/// Sends one train of equal segments; returns its bytes.
fn send_train(to: SocketAddr) -> Result<Vec<u8>, Trouble> {
    let sender = VxlanSocket::bind((Ipv4Addr::LOCALHOST, 0).into()).map_err(Trouble::no_test)?;
    let bytes = pattern(SEGMENTS * SEGMENT_LEN);
    let mut batch = SendBatch::with_capacity(1, 1);
    batch.piece(0, 0..bytes.len());
    batch.push(to, Some(SEGMENT_LEN_U16));
    if batch.flush(&sender, &[&bytes]).sent == 1 {
        return Ok(bytes);
    }
    let why = batch.failures().first().map(|f| format!("{:?}", f.kind));
    Err(Trouble::Broken(format!(
        "the kernel refuses a segmented datagram ({}): segments are sent one by one, which costs throughput",
        why.unwrap_or_default()
    )))
}

/// A train arrives at an ordinary socket as the datagrams that it stands for.
pub(super) fn segment() -> Result<String, Trouble> {
    let receiver = UdpSocket::bind(loopback()?).map_err(Trouble::no_test)?;
    receiver.set_nonblocking(true).map_err(Trouble::no_test)?;
    let to = receiver.local_addr().map_err(Trouble::no_test)?;
    let sent = send_train(to)?;
    let mut buffer = vec![0; 2 * SEGMENT_LEN];
    for expected in sent.chunks(SEGMENT_LEN) {
        let Some(len) = wait_for(|| receiver.recv(&mut buffer).ok()) else {
            return Err(Trouble::Broken(
                "segments do not arrive: they are sent one by one, which costs throughput"
                    .to_owned(),
            ));
        };
        if buffer[..len] != *expected {
            return Err(Trouble::Broken(
                "segments of equal size arrive damaged: they are sent one by one, which costs throughput; a newer kernel helps"
                    .to_owned(),
            ));
        }
    }
    Ok(format!(
        "{SEGMENTS} segments of equal size in one send arrived as they were"
    ))
}

/// A train arrives at a socket of the data path with the right size of its segments.
pub(super) fn gro() -> Result<String, Trouble> {
    let receiver = VxlanSocket::bind(loopback()?).map_err(Trouble::no_test)?;
    let sent = match send_train(receiver.local_addr()) {
        Err(Trouble::Broken(why)) => return Err(Trouble::NoTest(why)),
        other => other?,
    };
    let mut batch = RecvBatch::new(SEGMENTS);
    let mut received = Vec::new();
    let mut merged = 0;
    while received.len() < sent.len() {
        let Some(count) = wait_for(|| batch.recv(&receiver).ok().filter(|n| *n > 0)) else {
            return Err(Trouble::Broken(format!(
                "{} of {} bytes arrived: a newer kernel helps",
                received.len(),
                sent.len()
            )));
        };
        for message in (0..count).filter_map(|i| batch.message(i)) {
            let size = message.gso_size.map(usize::from);
            if size.is_some_and(|size| size != SEGMENT_LEN) {
                return Err(Trouble::Broken(format!(
                    "segments of {SEGMENT_LEN} bytes are said to have {}: a newer kernel helps",
                    size.unwrap_or_default()
                )));
            }
            merged += usize::from(size.is_some());
            received.extend_from_slice(&batch.arena()[message.range]);
        }
    }
    if received != sent {
        return Err(Trouble::Broken(
            "merged datagrams arrive damaged: a newer kernel helps".to_owned(),
        ));
    }
    Ok(if merged > 0 {
        "a train arrived whole, with the size of its segments".to_owned()
    } else {
        "datagrams arrived one by one, as they were".to_owned()
    })
}
