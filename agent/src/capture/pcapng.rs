//! The blocks of a pcapng section (draft-ietf-opsawg-pcapng), little-endian, that a capture needs.
//!
//! Written by hand: the crates that write pcapng are unmaintained, a release candidate, or bring
//! second versions of half the derive machinery, for the six fields below.

use std::sync::Arc;

use weft_dataplane::{Fate, Record, UNDERLAY};

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const STATISTICS: u32 = 5;
const PACKET: u32 = 6;
const ETHERNET: u32 = 1;

/// One section, with an interface for each port that was seen.
#[derive(Debug)]
pub(super) struct Section {
    ports: Vec<Option<Arc<str>>>,
    snap_len: u32,
}

impl Section {
    /// Begins it in `out`; `snap_len` is 0 when frames are kept whole.
    pub(super) fn begin(snap_len: u32, out: &mut Vec<u8>) -> Self {
        block(out, SECTION_HEADER, |out| {
            // Byte-order magic, version 1.0, length unknown.
            out.extend_from_slice(&0x1a2b_3c4d_u32.to_le_bytes());
            out.extend_from_slice(&[1, 0, 0, 0]);
            out.extend_from_slice(&[0xff; 8]);
            let program = concat!("weft ", env!("CARGO_PKG_VERSION"));
            option(out, 4, program.as_bytes());
            end_of_options(out);
        });
        let mut section = Self {
            ports: Vec::new(),
            snap_len,
        };
        // Always there: losses are told about it.
        section.interface(None, out);
        section
    }

    /// Adds a frame, and its interface where it is the first one there.
    pub(super) fn packet(&mut self, record: &Record, out: &mut Vec<u8>) {
        let interface = self.interface(record.port.as_ref(), out);
        block(out, PACKET, |out| {
            for word in [interface, (record.at >> 32) as u32, record.at as u32] {
                out.extend_from_slice(&word.to_le_bytes());
            }
            for len in [record.bytes.len(), record.len] {
                let len = u32::try_from(len).unwrap_or(u32::MAX);
                out.extend_from_slice(&len.to_le_bytes());
            }
            padded(out, &record.bytes);
            // epb_flags: direction, as the sandbox sees it.
            let direction: u32 = match record.fate {
                Fate::Incoming => 1,
                Fate::Outgoing => 2,
                Fate::Dropped(_) if record.port.is_none() => 1,
                Fate::Dropped(_) => 0,
            };
            option(out, 2, &direction.to_le_bytes());
            if let Fate::Dropped(reason) = record.fate {
                let mut text = format!("dropped, {}: {}", reason.name(), reason.help());
                if let Some(vtep) = record.vtep {
                    text.push_str(&format!(" From {vtep}."));
                }
                option(out, 1, text.as_bytes());
            }
            end_of_options(out);
        });
    }

    /// Says how many wanted frames were lost until now (`isb_osdrop`).
    pub(super) fn lost(&self, at: u64, lost: u64, out: &mut Vec<u8>) {
        block(out, STATISTICS, |out| {
            for word in [0, (at >> 32) as u32, at as u32] {
                out.extend_from_slice(&word.to_le_bytes());
            }
            option(out, 7, &lost.to_le_bytes());
            end_of_options(out);
        });
    }

    fn interface(&mut self, port: Option<&Arc<str>>, out: &mut Vec<u8>) -> u32 {
        if let Some(known) = self.ports.iter().position(|p| p.as_ref() == port) {
            return u32::try_from(known).unwrap_or(u32::MAX);
        }
        self.ports.push(port.cloned());
        block(out, INTERFACE, |out| {
            out.extend_from_slice(&ETHERNET.to_le_bytes());
            out.extend_from_slice(&self.snap_len.to_le_bytes());
            option(out, 2, port.map_or(UNDERLAY, |name| name).as_bytes());
            // if_tsresol: nanoseconds.
            option(out, 9, &[9]);
            end_of_options(out);
        });
        u32::try_from(self.ports.len() - 1).unwrap_or(u32::MAX)
    }
}

/// A block with its length in front and behind.
fn block(out: &mut Vec<u8>, kind: u32, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&kind.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    body(out);
    let len = u32::try_from(out.len() + 4 - start).unwrap_or(u32::MAX);
    out.extend_from_slice(&len.to_le_bytes());
    out[start + 4..start + 8].copy_from_slice(&len.to_le_bytes());
}

fn option(out: &mut Vec<u8>, code: u16, value: &[u8]) {
    let len = u16::try_from(value.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&code.to_le_bytes());
    out.extend_from_slice(&len.to_le_bytes());
    padded(out, &value[..usize::from(len)]);
}

fn end_of_options(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0; 4]);
}

/// To whole words.
fn padded(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(bytes);
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use pcap_parser::pcapng::{Block, PcapNGOption};
    use pcap_parser::traits::{PcapNGPacketBlock, PcapReaderIterator};
    use pcap_parser::{PcapBlockOwned, PcapError, PcapNGReader};
    use weft_wire::DropReason;

    use super::*;

    fn record(port: Option<&str>, fate: Fate, bytes: &[u8], len: usize) -> Record {
        Record {
            at: 1_700_000_000_123_456_789,
            port: port.map(Arc::from),
            vtep: port.is_none().then(|| [192, 0, 2, 7].into()),
            fate,
            len,
            bytes: bytes.to_vec(),
        }
    }

    fn text<'a>(options: &'a [PcapNGOption<'_>], code: u16) -> Option<&'a str> {
        let found = options.iter().find(|o| o.code.0 == code)?;
        std::str::from_utf8(&found.value[..usize::from(found.len)]).ok()
    }

    #[test]
    fn another_reader_understands_it() {
        let mut bytes = Vec::new();
        let mut section = Section::begin(96, &mut bytes);
        let spoofed = Fate::Dropped(DropReason::SpoofedIp);
        let records = [
            record(Some("web.1"), Fate::Outgoing, b"abcde", 9000),
            record(Some("web.1"), spoofed, b"abcd", 4),
            record(None, Fate::Dropped(DropReason::UnknownVtep), b"", 0),
            record(Some("db"), Fate::Incoming, b"x", 1),
        ];
        for record in &records {
            section.packet(record, &mut bytes);
        }
        section.lost(records[0].at, 3, &mut bytes);

        let mut reader = PcapNGReader::new(1 << 16, &bytes[..]).expect("a section");
        let (mut names, mut packets, mut lost) = (Vec::new(), Vec::new(), None);
        loop {
            let used = match reader.next() {
                Ok((used, PcapBlockOwned::NG(block))) => {
                    match block {
                        Block::SectionHeader(header) => {
                            assert!(
                                text(&header.options, 4).is_some_and(|t| t.starts_with("weft"))
                            );
                        }
                        Block::InterfaceDescription(i) => {
                            assert_eq!((i.if_tsresol, i.snaplen), (9, 96));
                            names.push(text(&i.options, 2).expect("a name").to_owned());
                        }
                        Block::EnhancedPacket(p) => packets.push((
                            p.if_id as usize,
                            (u64::from(p.ts_high) << 32) | u64::from(p.ts_low),
                            p.packet_data().to_vec(),
                            p.origlen as usize,
                            text(&p.options, 1).map(str::to_owned),
                        )),
                        Block::InterfaceStatistics(s) => {
                            let option = s.options.iter().find(|o| o.code.0 == 7);
                            lost = option.map(|o| o.value[0]);
                        }
                        other => panic!("{other:?}"),
                    }
                    used
                }
                Ok(_) => panic!("a block of the old format"),
                Err(PcapError::Eof) => break,
                Err(PcapError::Incomplete(_)) => {
                    reader.refill().expect("more bytes");
                    continue;
                }
                Err(error) => panic!("{error:?}"),
            };
            reader.consume(used);
        }
        assert_eq!(names, ["underlay", "web.1", "db"]);
        assert_eq!(lost, Some(3));
        let at = records[0].at;
        let comment = |reason: DropReason| format!("dropped, {}: {}", reason.name(), reason.help());
        let unknown = comment(DropReason::UnknownVtep) + " From 192.0.2.7.";
        assert_eq!(
            packets,
            [
                (1, at, b"abcde".to_vec(), 9000, None),
                (
                    1,
                    at,
                    b"abcd".to_vec(),
                    4,
                    Some(comment(DropReason::SpoofedIp))
                ),
                (0, at, Vec::new(), 0, Some(unknown)),
                (2, at, b"x".to_vec(), 1, None),
            ]
        );
    }
}
