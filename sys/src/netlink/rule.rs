//! Rules that choose a routing table by source address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage as Message};

use super::address::family;
use super::{Netlink, NetlinkError, accept};

/// `from SOURCE lookup TABLE` at a priority; lower priorities are asked first, the main table's is
/// 32766.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Sources that it holds for; `0.0.0.0/0` or `::/0` for all of a family.
    pub from: IpNet,
    /// Table that is looked up.
    pub table: u32,
    /// Place in the order.
    pub priority: u32,
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

    /// Rules of both families that look up a table, in order of priority.
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
    if rule.from.prefix_len() > 0 {
        message
            .attributes
            .push(RuleAttribute::Source(rule.from.network()));
    }
    message
}

fn describe(rule: &Rule) -> String {
    format!("rule from {} lookup {}", rule.from, rule.table)
}

fn parse(message: &RuleMessage) -> Option<Rule> {
    if message.header.action != RuleAction::ToTable {
        return None;
    }
    let mut from: IpAddr = match message.header.family {
        AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
        AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let (mut table, mut priority) = (u32::from(message.header.table), 0);
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Source(ip) => from = *ip,
            RuleAttribute::Table(number) => table = *number,
            RuleAttribute::Priority(number) => priority = *number,
            _ => {}
        }
    }
    let from = IpNet::new(from, message.header.src_len).ok()?;
    Some(Rule {
        from,
        table,
        priority,
    })
}
