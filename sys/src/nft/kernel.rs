//! What `nft` the program cannot do: ask for the generation of the rules thousands of times, and own
//! a table.

use std::io;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

/// `NFNL_SUBSYS_NFTABLES`, the upper byte of message types (`linux/netfilter/nfnetlink.h`).
const SUBSYSTEM: u16 = 10 << 8;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
// `enum nf_tables_msg_types` of `linux/netfilter/nf_tables.h`.
const NEW_TABLE: u16 = SUBSYSTEM;
const NEW_CHAIN: u16 = SUBSYSTEM | 3;
const NEW_RULE: u16 = SUBSYSTEM | 6;
const NEW_GENERATION: u16 = SUBSYSTEM | 15;
const GET_GENERATION: u16 = SUBSYSTEM | 16;

const REQUEST: u16 = libc::NLM_F_REQUEST as u16;
const ACK: u16 = libc::NLM_F_ACK as u16;
const CREATE: u16 = (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;
const APPEND: u16 = (libc::NLM_F_CREATE | libc::NLM_F_APPEND) as u16;

/// `NFPROTO_INET`.
const INET: u8 = 1;
const NESTED: u16 = libc::NLA_F_NESTED as u16;

/// A `nlmsghdr` and a `nfgenmsg`.
const HEADERS: usize = 16 + 4;

/// Number of the rule set of the calling thread's namespace: it grows with every transaction of
/// anybody. Costs microseconds, where listing a table costs a process.
///
/// # Errors
/// The kernel has no nftables, or the process may not look at it.
pub fn generation() -> io::Result<u32> {
    let socket = open()?;
    let mut request = Vec::new();
    message(&mut request, GET_GENERATION, REQUEST, 0, 0, &[]);
    socket.send(&request, 0)?;
    let answer = receive(&socket)?;
    // NFTA_GEN_ID = 1.
    let parse = || {
        let body = (answer.get(4..6)? == NEW_GENERATION.to_ne_bytes()).then_some(&answer)?;
        let mut rest = body.get(HEADERS..)?;
        loop {
            let len = u16::from_ne_bytes(*rest.first_chunk()?);
            let kind = u16::from_ne_bytes(*rest.get(2..)?.first_chunk()?);
            if kind == 1 {
                return Some(u32::from_be_bytes(*rest.get(4..)?.first_chunk()?));
            }
            rest = rest.get(usize::from(len.max(4)).next_multiple_of(4)..)?;
        }
    };
    parse().ok_or_else(|| io::Error::other("the kernel did not tell the generation of its rules"))
}

/// Keeps the kernel's connection tracking and address translation at work in a namespace, whoever
/// deletes the rules that asked for them: what they know of open connections goes on being done.
///
/// It is a table that this process owns (Linux 5.12), so `nft flush ruleset` leaves it alone. The
/// kernel removes it when the value is dropped or the process ends.
#[derive(Debug)]
pub struct TranslationHold {
    _owner: Socket,
}

impl TranslationHold {
    /// Holds them in the calling thread's namespace by a table named `table` of the family `inet`.
    ///
    /// # Errors
    /// Somebody has a table of that name, or the kernel refuses.
    pub fn new(table: &str) -> io::Result<Self> {
        let mut batch = Vec::new();
        message(&mut batch, BATCH_BEGIN, REQUEST, 0, 10, &[]);
        // NFTA_TABLE_NAME = 1, NFTA_TABLE_FLAGS = 2: NFT_TABLE_F_OWNER = 2.
        let mut body = Vec::new();
        text(&mut body, 1, table);
        attribute(&mut body, 2, &2_u32.to_be_bytes());
        message(
            &mut batch,
            NEW_TABLE,
            REQUEST | CREATE | ACK,
            INET,
            0,
            &body,
        );
        // One chain of the kind `nat` brings in the translation of all hooks. NFTA_CHAIN_TABLE = 1,
        // NAME = 3, HOOK = 4 { NUM = 1: prerouting, PRIORITY = 2: after all others }, TYPE = 7.
        let mut hook = Vec::new();
        attribute(&mut hook, 1, &0_u32.to_be_bytes());
        attribute(&mut hook, 2, &300_i32.to_be_bytes());
        let mut body = Vec::new();
        text(&mut body, 1, table);
        text(&mut body, 3, CHAIN);
        attribute(&mut body, 4 | NESTED, &hook);
        text(&mut body, 7, "nat");
        message(
            &mut batch,
            NEW_CHAIN,
            REQUEST | CREATE | ACK,
            INET,
            0,
            &body,
        );
        // A rule that reads the state of a connection (NFT_CT_STATE = 0 into register 1) and does
        // nothing with it makes the kernel track connections. NFTA_RULE_TABLE = 1, CHAIN = 2,
        // EXPRESSIONS = 4 [ELEM = 1 { NAME = 1, DATA = 2 { NFTA_CT_DREG = 1, KEY = 2 } }].
        let mut data = Vec::new();
        attribute(&mut data, 1, &1_u32.to_be_bytes());
        attribute(&mut data, 2, &0_u32.to_be_bytes());
        let mut expression = Vec::new();
        text(&mut expression, 1, "ct");
        attribute(&mut expression, 2 | NESTED, &data);
        let mut list = Vec::new();
        attribute(&mut list, 1 | NESTED, &expression);
        let mut body = Vec::new();
        text(&mut body, 1, table);
        text(&mut body, 2, CHAIN);
        attribute(&mut body, 4 | NESTED, &list);
        message(&mut batch, NEW_RULE, REQUEST | APPEND | ACK, INET, 0, &body);
        message(&mut batch, BATCH_END, REQUEST, 0, 10, &[]);

        let socket = open()?;
        socket.send(&batch, 0)?;
        // One answer for each of table, chain and rule; a refusal of any undoes all.
        for _ in 0..3 {
            let answer = receive(&socket)?;
            let code = answer.get(16..).and_then(|rest| rest.first_chunk());
            match code.copied().map(i32::from_ne_bytes) {
                Some(0) => {}
                Some(code) => return Err(io::Error::from_raw_os_error(-code)),
                None => return Err(io::Error::other("an answer of netfilter is too short")),
            }
        }
        Ok(Self { _owner: socket })
    }
}

const CHAIN: &str = "hold";

fn open() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    Ok(socket)
}

fn receive(socket: &Socket) -> io::Result<Vec<u8>> {
    loop {
        match socket.recv_from_full() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return Ok(result?.0),
        }
    }
}

fn message(to: &mut Vec<u8>, kind: u16, flags: u16, family: u8, resource: u16, body: &[u8]) {
    let len = u32::try_from(HEADERS + body.len()).unwrap_or(u32::MAX);
    to.extend_from_slice(&len.to_ne_bytes());
    to.extend_from_slice(&kind.to_ne_bytes());
    to.extend_from_slice(&flags.to_ne_bytes());
    // Sequence number and port: the kernel answers on the same socket.
    to.extend_from_slice(&[0; 8]);
    to.extend_from_slice(&[family, 0]);
    to.extend_from_slice(&resource.to_be_bytes());
    to.extend_from_slice(body);
}

fn attribute(to: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let len = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    to.extend_from_slice(&len.to_ne_bytes());
    to.extend_from_slice(&kind.to_ne_bytes());
    to.extend_from_slice(value);
    to.resize(to.len().next_multiple_of(4), 0);
}

fn text(to: &mut Vec<u8>, kind: u16, value: &str) {
    attribute(to, kind, &[value.as_bytes(), &[0]].concat());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netns::Netns;
    use crate::nft::{apply, list_table};

    #[test]
    fn the_generation_grows_with_every_transaction() {
        let netns = Netns::create_anonymous().expect("netns");
        netns
            .run_in(|| {
                let before = generation().expect("generation");
                assert_eq!(generation().expect("again"), before);
                apply("table inet a { }").expect("apply");
                assert_eq!(generation().expect("after"), before + 1);
                apply("table inet a { chain c { }; }; add rule inet a c accept").expect("apply");
                assert_eq!(generation().expect("one transaction"), before + 2);
            })
            .expect("run");
    }

    #[test]
    fn a_hold_outlives_a_flush_and_goes_with_its_owner() {
        let netns = Netns::create_anonymous().expect("netns");
        netns
            .run_in(|| {
                let there = || list_table("inet", "held").expect("list");
                let hold = TranslationHold::new("held").expect("hold");
                TranslationHold::new("held").expect_err("taken");
                apply("flush ruleset").expect("flush");
                let table = there().expect("it stays").to_string();
                assert!(table.contains(r#""type":"nat""#), "{table}");
                drop(hold);
                assert!(there().is_none());
            })
            .expect("run");
    }
}
