//! Rules that choose a routing table by source address or by mark.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage as Message};

use super::address::family;
use super::{Netlink, NetlinkError, accept};

/// Bits of a packet's mark, and the value that they have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Value under the mask.
    pub value: u32,
    /// The bits that count.
    pub mask: u32,
}

/// `from SOURCE [fwmark MARK] lookup TABLE` at a priority; lower priorities are asked first, the main table's is
/// 32766.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Sources that it holds for; `0.0.0.0/0` or `::/0` for all of a family.
    pub from: IpNet,
    /// Table that is looked up.
    pub table: u32,
    /// Place in the order.
    pub priority: u32,
    /// Packets without this mark are none of its business.
    pub mark: Option<Mark>,
}

impl Rule {
    /// `from SOURCE lookup TABLE`.
    #[must_use]
    pub const fn by_source(from: IpNet, table: u32, priority: u32) -> Self {
        Self {
            from,
            table,
            priority,
            mark: None,
        }
    }

    /// `fwmark MARK lookup TABLE`, for one address family.
    #[must_use]
    pub fn by_mark(mark: Mark, ipv4: bool, table: u32, priority: u32) -> Self {
        let from = if ipv4 {
            IpNet::V4(ipnet::Ipv4Net::default())
        } else {
            IpNet::V6(ipnet::Ipv6Net::default())
        };
        Self {
            from,
            table,
            priority,
            mark: Some(mark),
        }
    }
}

impl Netlink {
    /// Adds a rule.
    ///
    /// # Errors
    /// [`NetlinkError::Kernel`].
    pub fn add_rule(&mut self, rule: &Rule) -> Result<(), NetlinkError> {
        accept(
            libc::EEXIST,
            self.change(Message::NewRule(message(rule)), NLM_F_CREATE | NLM_F_EXCL),
        )
        .map_err(NetlinkError::kernel("add", describe(rule)))
    }

    /// Removes a rule; one that is not there is success.
    ///
    /// # Errors
    /// [`NetlinkError::Kernel`].
    pub fn delete_rule(&mut self, rule: &Rule) -> Result<(), NetlinkError> {
        accept(
            libc::ENOENT,
            self.change(Message::DelRule(message(rule)), 0),
        )
        .map_err(NetlinkError::kernel("remove", describe(rule)))
    }

    /// Rules of both families that look up a table by source and mark alone, in order of priority.
    ///
    /// # Errors
    /// [`NetlinkError::Kernel`].
    pub fn rules(&mut self) -> Result<Vec<Rule>, NetlinkError> {
        let mut rules = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut request = RuleMessage::default();
            request.header.family = family;
            let answers = self
                .dump(Message::GetRule(request))
                .map_err(NetlinkError::kernel("list", "rules"))?;
            for answer in answers {
                if let Message::NewRule(message) = answer {
                    rules.extend(parse(&message));
                }
            }
        }
        rules.sort_by_key(|rule| rule.priority);
        Ok(rules)
    }
}

fn message(rule: &Rule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = family(rule.from.addr());
    message.header.src_len = rule.from.prefix_len();
    message.header.table = u8::try_from(rule.table).unwrap_or(0);
    message.header.action = RuleAction::ToTable;
    message.attributes.push(RuleAttribute::Table(rule.table));
    message
        .attributes
        .push(RuleAttribute::Priority(rule.priority));
    if let Some(mark) = rule.mark {
        message.attributes.push(RuleAttribute::FwMark(mark.value));
        message.attributes.push(RuleAttribute::FwMask(mark.mask));
    }
    if rule.from.prefix_len() > 0 {
        message
            .attributes
            .push(RuleAttribute::Source(rule.from.network()));
    }
    message
}

fn describe(rule: &Rule) -> String {
    let (from, table) = (rule.from, rule.table);
    match rule.mark {
        Some(Mark { value, mask }) => {
            format!("rule from {from} fwmark {value:#x}/{mask:#x} lookup {table}")
        }
        None => format!("rule from {from} lookup {table}"),
    }
}

fn parse(message: &RuleMessage) -> Option<Rule> {
    let header = &message.header;
    if header.action != RuleAction::ToTable
        || header.dst_len > 0
        || header.tos > 0
        || header.flags.contains(RuleFlags::Invert)
    {
        return None;
    }
    let mut from: IpAddr = match message.header.family {
        AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
        AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let (mut table, mut priority) = (u32::from(message.header.table), 0);
    let mut mark = Mark { value: 0, mask: 0 };
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Source(ip) => from = *ip,
            RuleAttribute::Table(number) => table = *number,
            RuleAttribute::Priority(number) => priority = *number,
            RuleAttribute::FwMark(value) => mark.value = *value,
            RuleAttribute::FwMask(mask) => mark.mask = *mask,
            RuleAttribute::SuppressPrefixLen(u32::MAX)
            | RuleAttribute::SuppressIfGroup(u32::MAX)
            | RuleAttribute::Protocol(_) => {}
            // What else it asks for, this type has no words for.
            _ => return None,
        }
    }
    let from = IpNet::new(from, message.header.src_len).ok()?;
    Some(Rule {
        from,
        table,
        priority,
        mark: (mark.mask != 0).then_some(mark),
    })
}
