//! The programs and their tables, loaded.

use std::io;

use aya::maps::{Map, MapData, MapError, PerCpuArray};
use aya::programs::{ProgramError, ProgramFd, SchedClassifier};
use aya::{Ebpf, EbpfError, EbpfLoader};
use weft_sys::kernel_words::KernelWords;
use weft_sys::netlink::{Hook, Netlink, NetlinkError};

use crate::counters::{Event, EventCounts};
use crate::entry::MESH_NUMBER;
use crate::installer::Installer;
use crate::record::{Epochs, FLOWS, Heartbeat, NETWORKS, Records, SecondPort};

/// `bpf/weft.bpf.c`, compiled by `cargo xtask bpf`.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../bpf/weft.bpf.o");

/// Why there is no flow cache.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// Local: the kernel does not take the object.
    #[error("the kernel does not take the programs: {0}")]
    Object(#[from] EbpfError),
    /// Local: the kernel's verifier refused a program.
    #[error("the kernel does not take the program {name}: {source}")]
    Program {
        /// Its name.
        name: &'static str,
        /// What it said.
        source: ProgramError,
    },
    /// Local: a table.
    #[error("a table of the programs: {0}")]
    Map(#[from] MapError),
    /// Local: memory shared with a table.
    #[error("memory shared with the programs: {0}")]
    Memory(#[from] io::Error),
    /// The object is not the one that this program was built for.
    #[error("the programs have no {0}: build weft anew")]
    Missing(&'static str),
}

/// The programs and their tables. What was attached lives on after this value, and after the process.
pub struct FlowCache {
    leave: ProgramFd,
    push: ProgramFd,
    pop: ProgramFd,
    enter: ProgramFd,
    sink: ProgramFd,
    out: u32,
    inward: u32,
    counters: PerCpuArray<MapData, u64>,
    /// What is no part of [`FlowCache::events`].
    forgotten: EventCounts,
    /// What was carried, flow by flow.
    pub records: Records,
    /// Which entries hold.
    pub epochs: Epochs,
    /// Until when.
    pub heartbeat: Heartbeat,
    /// Where flows may arrive besides the data path's port.
    pub second_port: SecondPort,
}

impl std::fmt::Debug for FlowCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FlowCache")
            .field("out", &self.out)
            .field("inward", &self.inward)
            .finish_non_exhaustive()
    }
}

impl FlowCache {
    /// Flows that there is room for; each has one record and up to two entries.
    pub const FLOWS: u32 = FLOWS;

    /// Loads the programs. Nothing is attached, and no entry holds before the first
    /// [`Heartbeat::beat`].
    ///
    /// # Errors
    /// [`LoadError`], nearly always for lack of privilege or of a kernel from 5.13 on.
    pub fn load() -> Result<Self, LoadError> {
        // Types of the kernel are not asked for: the programs read nothing of its own.
        let mut object = EbpfLoader::new().btf(None).load(OBJECT)?;
        // Before any table is taken: programs name them.
        let leave = program(&mut object, "leave")?;
        let push = program(&mut object, "push")?;
        let pop = program(&mut object, "pop")?;
        let enter = program(&mut object, "enter")?;
        let sink = program(&mut object, "sink")?;
        let (out, inward) = (
            map(&mut object, "out_flows")?,
            map(&mut object, "in_flows")?,
        );
        let counters = object
            .take_map("counters")
            .ok_or(LoadError::Missing("counters"))?;
        let mut words = |name, words: usize| -> Result<KernelWords, LoadError> {
            let data = map(&mut object, name)?;
            Ok(KernelWords::map(data.fd(), words)?)
        };
        let records = Records::of(words("records", Records::WORDS)?);
        let epochs = Epochs::of(words("epochs", NETWORKS as usize)?);
        let heartbeat = Heartbeat::of(words("until", 1)?);
        let second_port = SecondPort(words("second", 1)?);
        let installer = (out.info()?.id(), inward.info()?.id());
        Ok(Self {
            leave,
            push,
            pop,
            enter,
            sink,
            out: installer.0,
            inward: installer.1,
            counters: PerCpuArray::try_from(counters)?,
            forgotten: EventCounts::default(),
            records,
            epochs,
            heartbeat,
            second_port,
        })
    }

    /// A writer of entries.
    ///
    /// # Errors
    /// [`LoadError::Map`].
    pub fn installer(&self) -> Result<Installer, LoadError> {
        let (out, inward) = (MapData::from_id(self.out)?, MapData::from_id(self.inward)?);
        Ok(Installer::new(out, inward)?)
    }

    /// Puts the programs in front of the devices of a sandbox with this number, which flows name as
    /// [`Scope::Out`](crate::Scope::Out): its first device, seen by `inside`, and the host's end of
    /// the second one, seen by `host`. [`SELF_TEST_NUMBERS`](crate::selftest::SELF_TEST_NUMBERS) and
    /// [`MESH_NUMBER`] are not for sandboxes.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn attach_sandbox(
        &self,
        number: u16,
        (inside, first): (&mut Netlink, &str),
        (host, second): (&mut Netlink, &str),
    ) -> Result<(), NetlinkError> {
        // The first one first: where an earlier process had entries, nothing more leaves by them.
        inside.set_program(first, Hook::Egress, &self.leave, number)?;
        host.set_program(second, Hook::Ingress, &self.push, number)
    }

    /// Puts the program in front of a device of the underlay.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn attach_underlay(&self, links: &mut Netlink, device: &str) -> Result<(), NetlinkError> {
        links.set_program(device, Hook::Ingress, &self.pop, 0)
    }

    /// Puts the program in front of `weft0`, by which clients of published ports come: flows name it
    /// as [`Scope::Out`](crate::Scope::Out) of [`MESH_NUMBER`].
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn attach_mesh(&self, links: &mut Netlink, device: &str) -> Result<(), NetlinkError> {
        links.set_program(device, Hook::Egress, &self.enter, MESH_NUMBER)
    }

    /// Closes the device that the second port belongs to: what reaches it by itself is for nobody, but
    /// for flows whose entries say so ([`InEntry::by_device`](crate::InEntry::by_device)).
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn attach_sink(&self, links: &mut Netlink, device: &str) -> Result<(), NetlinkError> {
        links.set_program(device, Hook::Ingress, &self.sink, 0)
    }

    /// What happened so far, but for what was forgotten.
    ///
    /// # Errors
    /// [`LoadError::Map`].
    pub fn events(&self) -> Result<EventCounts, LoadError> {
        let mut counts = self.counted()?;
        for (count, forgotten) in counts.0.iter_mut().zip(self.forgotten.0) {
            *count = count.saturating_sub(forgotten);
        }
        Ok(counts)
    }

    /// Forgets what happened so far: packets of the self-test are nobody's, and where a kernel refuses
    /// those of IPv6, none was lost.
    ///
    /// # Errors
    /// [`LoadError::Map`].
    pub fn forget_events(&mut self) -> Result<(), LoadError> {
        self.forgotten = self.counted()?;
        Ok(())
    }

    fn counted(&self) -> Result<EventCounts, LoadError> {
        let mut counts = EventCounts::default();
        for (event, count) in Event::ALL.into_iter().zip(&mut counts.0) {
            let cpus = self.counters.get(&(event as u32), 0)?;
            *count = cpus.iter().sum();
        }
        Ok(counts)
    }
}

fn map(object: &mut Ebpf, name: &'static str) -> Result<MapData, LoadError> {
    match object.take_map(name) {
        Some(Map::HashMap(data) | Map::Array(data)) => Ok(data),
        _ => Err(LoadError::Missing(name)),
    }
}

fn program(object: &mut Ebpf, name: &'static str) -> Result<ProgramFd, LoadError> {
    let refused = |source| LoadError::Program { name, source };
    let program = object.program_mut(name).ok_or(LoadError::Missing(name))?;
    let program: &mut SchedClassifier = program.try_into().map_err(refused)?;
    program.load().map_err(refused)?;
    let fd = program.fd().map_err(refused)?;
    Ok(fd.try_clone()?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::entry::{IN, KEY, OUT};
    use crate::record::RECORD_WORDS;

    /// Bytes of a word of memory that is shared, and of a counter.
    const WORD: u32 = u64::BITS / 8;

    /// Bytes of key and value, and how many there is room for.
    fn layout(name: &str, map: &Map) -> [u32; 3] {
        let (Map::HashMap(data) | Map::Array(data) | Map::PerCpuArray(data)) = map else {
            panic!("{name} is none of the tables that are known: {map:?}");
        };
        let info = data.info().unwrap();
        [info.key_size(), info.value_size(), info.max_entries()]
    }

    #[test]
    fn tables_are_laid_out_as_this_crate_takes_them() {
        let object = EbpfLoader::new().btf(None).load(OBJECT).unwrap();
        let found: BTreeMap<_, _> = object
            .maps()
            .map(|(name, map)| (name, layout(name, map)))
            .collect();
        let [key, out, inward, record, events] = [KEY, OUT, IN, RECORD_WORDS, Event::ALL.len()]
            .map(|number| u32::try_from(number).unwrap());
        let expected = BTreeMap::from([
            ("out_flows", [key, out, FLOWS]),
            ("in_flows", [key, inward, FLOWS]),
            ("records", [4, record * WORD, FLOWS]),
            ("epochs", [4, WORD, NETWORKS]),
            ("until", [4, WORD, 1]),
            ("second", [4, WORD, 1]),
            ("counters", [4, WORD, events]),
        ]);
        assert_eq!(found, expected);
    }
}
