//! Programs in front of an interface: filters of the queueing discipline `clsact`.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_packet_route::tc::{
    TcAttribute, TcBpfFlags, TcFilterBpf, TcFilterBpfOption, TcHandle, TcMessage, TcOption,
};

use super::{Netlink, NetlinkError, accept};

/// Preference of the filters, by which they are found again. Those with a smaller one run before.
const PREFERENCE: u32 = 4789;
/// `ETH_P_ALL`, in network order.
const ALL_PROTOCOLS: u32 = (libc::ETH_P_ALL as u16).to_be() as u32;
/// Each filter is the only one of its preference.
const HANDLE: TcHandle = TcHandle { major: 0, minor: 1 };

/// Which packets of an interface a program sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// What arrives, before anything else of this host has it.
    Ingress,
    /// What leaves, before the interface has it.
    Egress,
}

impl Hook {
    const fn parent(self) -> TcHandle {
        TcHandle {
            major: u16::MAX,
            minor: match self {
                Self::Ingress => TcHandle::MIN_INGRESS,
                Self::Egress => TcHandle::MIN_EGRESS,
            },
        }
    }
}

impl Netlink {
    /// Puts a program of type `BPF_PROG_TYPE_SCHED_CLS` in front of an interface, in place of the one
    /// that was put there before. It reads `class` as `skb->tc_classid`, and lives as long as the
    /// interface, also after this process.
    ///
    /// # Errors
    /// [`NetlinkError::NoLink`], [`NetlinkError::Kernel`].
    pub fn set_program(
        &mut self,
        name: &str,
        hook: Hook,
        program: impl AsFd,
        class: u16,
    ) -> Result<(), NetlinkError> {
        let refused = |op| NetlinkError::kernel(op, format!("the packets of interface {name}"));
        let index = self.link_index(name)?;
        let mut discipline = message(index, TcHandle::CLSACT)?;
        discipline.header.handle = TcHandle {
            major: u16::MAX,
            minor: 0,
        };
        discipline.attributes = vec![TcAttribute::Kind("clsact".to_owned())];
        let made = self.change(
            Message::NewQueueDiscipline(discipline),
            NLM_F_CREATE | NLM_F_EXCL,
        );
        accept(libc::EEXIST, made).map_err(refused("classify"))?;
        let descriptor = u32::try_from(program.as_fd().as_raw_fd()).map_err(io::Error::other)?;
        let mut filter = filter(index, hook)?;
        filter.attributes.push(TcAttribute::Options(
            [
                TcFilterBpfOption::ClassId(TcHandle {
                    major: 0,
                    minor: class,
                }),
                TcFilterBpfOption::ProgFd(descriptor),
                TcFilterBpfOption::ProgName("weft".to_owned()),
                TcFilterBpfOption::Flags(TcBpfFlags::DirectAction),
            ]
            .map(TcOption::Bpf)
            .into(),
        ));
        self.change(
            Message::NewTrafficFilter(filter),
            NLM_F_CREATE | NLM_F_REPLACE,
        )
        .map_err(refused("put a program in front of"))
    }

    /// Takes away what [`Netlink::set_program`] put there; success as well when nothing is there.
    ///
    /// # Errors
    /// [`NetlinkError::Kernel`].
    pub fn remove_program(&mut self, name: &str, hook: Hook) -> Result<(), NetlinkError> {
        let Some(link) = self.link(name)? else {
            return Ok(());
        };
        let removed = self.change(Message::DelTrafficFilter(filter(link.index, hook)?), 0);
        // EINVAL: it has no such discipline.
        let removed = accept(libc::EINVAL, accept(libc::ENOENT, removed));
        let object = format!("the program in front of interface {name}");
        removed.map_err(NetlinkError::kernel("remove", object))
    }
}

fn message(index: u32, parent: TcHandle) -> io::Result<TcMessage> {
    let mut message = TcMessage::default();
    message.header.index = index.try_into().map_err(io::Error::other)?;
    message.header.parent = parent;
    Ok(message)
}

fn filter(index: u32, hook: Hook) -> io::Result<TcMessage> {
    let mut filter = message(index, hook.parent())?;
    filter.header.handle = HANDLE;
    filter.header.info = PREFERENCE << 16 | ALL_PROTOCOLS;
    filter.attributes = vec![TcAttribute::Kind(TcFilterBpf::KIND.to_owned())];
    Ok(filter)
}
