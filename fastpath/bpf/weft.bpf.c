// SPDX-License-Identifier: MIT OR Apache-2.0
//
// The kernel flow cache: established TCP flows, and exchanges of UDP datagrams, that weft's workers
// have decided about go from sandbox to underlay, and back, without leaving the kernel. Bytes on the
// wire are the VXLAN that the workers send (RFC 7348), so the other end needs none of this.
//
//   sandbox eth0, egress   leave   known flow? -> out by the sandbox's second device, eth1
//   host's end of eth1     push    write the VXLAN headers, to the underlay; or to another sandbox
//   underlay, ingress      pop     strip the headers of a known flow, into the sandbox by eth1
//   weft0, egress          enter   a client of a published port: both of what leave and push do
//   merging device         sink    answers to such clients, into the host; nothing else is for it
//
// Devices deliver packets of the underlay's MTU, and the kernel merges what is in tunnels only at a
// port that a tunnel device of its own has. So flows of the kernel go to a second port, where there is
// such a device; pop stands in front of it, and gives what it does not carry to the workers' port.
//
// A miss is no loss: the packet goes on as if no program were there, to the TAP or the socket that a
// worker reads (but for what is between the two devices of its sandbox when its entry becomes stale). Workers keep every decision. Entries say which flow they are for, which
// tables they were made of (an epoch of the network: once it has moved on, each entry is stale at
// once), and what to write: headers of the tunnel, and for a flow to a virtual address that of the
// replica in its place, and back. What opens or ends a connection, carries options, is a fragment, is
// several datagrams in one, or is larger than the path takes is always a miss.
//
// Answers to clients outside go on by the host: its connection tracking undoes what led the client to
// weft0, and its routes lead them on. What `pop` makes of a super-frame keeps the marks of a tunnel,
// which no device outside may see. So these go past `pop`, which has looked at them, to the merging
// device: the kernel strips their headers as it does for any tunnel, marks and all, and `sink` gives
// them to weft0 as if a worker had written them there.
//
// Entries are found by the number of the sandbox, which the filters carry as their class
// (`struct qdisc_skb_cb`, set by cls_bpf before each run): what happens in a sandbox's own
// namespace, interface numbers included, is its root's to change.

#include <stdbool.h>
#include <stddef.h>

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

// Flags of the IPv4 header's third word.
#define MORE_FRAGMENTS 0x2000
#define FRAGMENT_OFFSET 0x1fff
#define DO_NOT_FRAGMENT 0x4000

// Of `linux/socket.h`, which is no header for programs.
#define AF_INET 2
#define AF_INET6 10

// Explicit congestion notification (RFC 3168): the two low bits of the traffic class. The lower one
// is set in marks of the way only, ECT(1) and CE.
#define ECN_MASK 0x03

// RFC 7348 section 5: the network number is valid.
#define VXLAN_I 0x08

#define TCP_FIN_SYN_RST 0x07
#define TCP_FLAGS_OFFSET 13

// Outer IPv4, UDP, VXLAN, and the inner Ethernet header.
#define OVERHEAD 50

// Of `enum bpf_adj_room_flags`, since Linux 6.3; headers may be older. Older kernels refuse it, and
// the self-test then finds IPv6 to be left to the workers.
#define DECAP_L3_IPV6 (1ULL << 8)

// Of Ethernet, IPv6 and TCP: as much as is read of a packet.
#define INNER_HEADERS 74

// How long a socket may send nothing but what it has sent before, in ns: beyond two time-outs of the
// least length, 200 and 400 ms.
#define STUCK_AFTER 1000000000ULL

// Number of weft0 among those of sandboxes; `MESH_NUMBER` of entry.rs.
#define MESH 65501

// No verdict of tc: the datagram is for the device of the second port.
#define BY_DEVICE (TC_ACT_UNSPEC - 1)

// Of `flow_key.scope`, where the protocol begins.
#define PROTOCOL 24

#define FLOWS 131072
#define NETWORKS 16384

struct vxlan_header {
	__u8 flags;
	__u8 reserved[3];
	__be32 vni; // in the upper 24 bits
};

// What a packet is found by. Addresses are IPv6, or IPv4 mapped into it (RFC 4291 section 2.5.5.2).
struct flow_key {
	__u32 scope; // out: number of the sandbox; in: number of the network; above 24 bits, the protocol
	__be16 sport;
	__be16 dport;
	__be32 saddr[4];
	__be32 daddr[4];
};

enum rewrite_side {
	REWRITE_NONE,
	REWRITE_SOURCE,
	REWRITE_DESTINATION,
};

// The end of a flow that gets another address and port on the way, and the port that the other end gets.
struct rewrite {
	__be32 addr[4];
	__be16 port;
	__be16 other_port; // 0: it stays
	__u8 side;
	__u8 unused[3];
};

// Hardware addresses, as they lie in a frame.
struct hardware {
	__u8 to[ETH_ALEN];
	__u8 from[ETH_ALEN];
};

// Where a flow goes from its sandbox, or from weft0.
struct out_entry {
	__u32 record;    // of `records`
	__u32 network;   // of `epochs`
	__u32 epoch;     // that the entry was made at
	__u32 second;    // the sandbox's second device, inside of it
	__u32 device;    // the underlay's device, weft0, or the host's end of another sandbox's second one
	__u32 other;     // number of the sandbox that it goes to on this node; 0: to another node
	__be32 next_hop; // on the underlay
	__be32 saddr;    // outer addresses
	__be32 daddr;
	__be16 sport; // outer ports
	__be16 dport;
	__be32 vni; // as in the header
	struct hardware hardware; // of what is inside; on this node of flows from and to weft0 only
	__u16 largest; // IP packet that fits, in bytes
	__u8 class;    // outer traffic class, as far as it is not the inner one
	__u8 keep;     // bits that are taken from the inner one; those of ECN always (RFC 6040)
	struct rewrite rewrite;
};

// Where a flow from another node goes to.
struct in_entry {
	__u32 record;
	__u32 network;
	__u32 epoch;
	__u32 device;   // the host's end of the sandbox's second device, or weft0
	__u32 underlay; // the device that leads to the node that may send it
	__be32 saddr;   // that node
	__be32 daddr; // of this node
	__be16 dport;
	__u16 by_device; // it goes to weft0, by the device of the second port
	struct hardware hardware; // written where it is so
	struct rewrite rewrite;
};

// What both directions of a flow write, and the agent reads where it lies.
struct record {
	__u64 out_bytes;
	__u64 out_packets;
	__u64 in_bytes;
	__u64 in_packets;
	__u64 last;   // monotonic clock, ns
	__u64 socket; // what is known of its socket in the sandbox
	__u64 sent;   // sequence number after the last byte that left, and what was acknowledged
	__u64 ahead;  // when that number was another one last
	__u64 came;   // sequence number after the last byte that came from another node; bit 32: is set
	__u64 fresh;  // when that number was another one last
	__u64 passed; // packets for the device of the second port
};

enum socket_state {
	SOCKET_UNKNOWN,
	// Takes its packets from any device.
	SOCKET_FREE,
	// Is bound to a device (SO_BINDTODEVICE): it would reset what comes from another one.
	SOCKET_BOUND,
	// Sends the same bytes again and again: what is carried does not arrive, here or there (a rule
	// of a firewall that names the device, a way that is closed to what workers do not send).
	SOCKET_STUCK,
};

// Numbers of `counters`. Order and names are those of `Event` in counters.rs.
enum counter {
	OUT_HIT,
	IN_HIT,
	LOCAL_HIT,
	STALE,
	TOO_LARGE,
	NO_SOCKET,
	MERGED,
	MARKED,
	OTHER_NODE,
	FAILED,
	COUNTERS,
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, FLOWS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct flow_key);
	__type(value, struct out_entry);
} out_flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, FLOWS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct flow_key);
	__type(value, struct in_entry);
} in_flows SEC(".maps");

// Read and written by the agent through memory that it shares with the programs.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, FLOWS);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct record);
} records SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, NETWORKS);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, __u64);
} epochs SEC(".maps");

// The agent's heartbeat: until when entries hold without it, monotonic clock, ns.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, __u64);
} until SEC(".maps");

// Where datagrams arrive besides the data path's port; 0 for nowhere.
union second_port {
	__u64 word; // all of it, read and written at once
	struct {
		__be32 addr;      // of this node
		__be16 port;      // at which the kernel merges
		__be16 data_path; // that the workers read
	};
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, __u64);
} second SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

static __always_inline void count(__u32 number)
{
	__u64 *counter = bpf_map_lookup_elem(&counters, &number);

	if (counter)
		*counter += 1;
}

// Whether what an entry was made of still holds.
static __always_inline bool holds(__u32 network, __u32 epoch, __u64 now)
{
	__u32 zero = 0;
	__u64 *current = bpf_map_lookup_elem(&epochs, &network);
	__u64 *end = bpf_map_lookup_elem(&until, &zero);

	return current && *(volatile __u64 *)current == epoch && end &&
	       now < *(volatile __u64 *)end;
}

static __always_inline union second_port second_port(void)
{
	union second_port port = {};
	__u32 zero = 0;
	__u64 *word = bpf_map_lookup_elem(&second, &zero);

	if (word)
		port.word = *(volatile __u64 *)word;
	return port;
}

// What is read of a packet.
struct packet {
	struct flow_key key;
	__u32 len;     // of the IP packet, by its own header
	__u32 headers; // of IP and what is in it
	__u32 seq;     // of TCP
	__u32 ack;
	__u8 class;    // traffic class
	bool ipv4;
	bool udp;
	bool summed;   // has a checksum
};

static __always_inline bool plain(const struct tcphdr *tcp)
{
	return !(((const __u8 *)tcp)[TCP_FLAGS_OFFSET] & TCP_FIN_SYN_RST);
}

// Reads what the IP packet has in it; false for everything but TCP within a connection and UDP.
static __always_inline bool read_transport(void *data, void *end, __u32 ip, __u8 protocol,
					   struct packet *packet)
{
	struct tcphdr *tcp = data;
	struct udphdr *udp = data;

	packet->key.scope = (__u32)protocol << PROTOCOL;
	packet->udp = protocol == IPPROTO_UDP;
	if (packet->udp) {
		// All of the packet, as a worker looks at what is behind the datagram (RFC 9868). IPv6 has
		// no datagram without a checksum but in tunnels (RFC 6935).
		if ((void *)(udp + 1) > end || bpf_ntohs(udp->len) < sizeof(*udp) ||
		    ip + bpf_ntohs(udp->len) != packet->len || (!packet->ipv4 && !udp->check))
			return false;
		packet->headers = ip + sizeof(*udp);
		packet->summed = udp->check;
		packet->key.sport = udp->source;
		packet->key.dport = udp->dest;
		return true;
	}
	if (protocol != IPPROTO_TCP || (void *)(tcp + 1) > end || !plain(tcp))
		return false;
	packet->headers = ip + tcp->doff * 4;
	packet->summed = true;
	packet->seq = bpf_ntohl(tcp->seq);
	packet->ack = bpf_ntohl(tcp->ack_seq);
	packet->key.sport = tcp->source;
	packet->key.dport = tcp->dest;
	return true;
}

// Reads the Ethernet frame at `data`, and its key but for the scope's number; false for what no entry
// is about.
static __always_inline bool read_packet(void *data, void *end, struct packet *packet)
{
	struct ethhdr *eth = data;

	if ((void *)(eth + 1) > end)
		return false;
	if (eth->h_proto == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = (void *)(eth + 1);

		if ((void *)(ip + 1) > end || ip->version != 4 || ip->ihl != 5 || ip->ttl <= 1 ||
		    ip->frag_off & bpf_htons(MORE_FRAGMENTS | FRAGMENT_OFFSET))
			return false;
		packet->ipv4 = true;
		packet->len = bpf_ntohs(ip->tot_len);
		packet->class = ip->tos;
		packet->key.saddr[0] = packet->key.saddr[1] = 0;
		packet->key.daddr[0] = packet->key.daddr[1] = 0;
		packet->key.saddr[2] = packet->key.daddr[2] = bpf_htonl(0xffff);
		packet->key.saddr[3] = ip->saddr;
		packet->key.daddr[3] = ip->daddr;
		return read_transport(ip + 1, end, sizeof(*ip), ip->protocol, packet);
	}
	if (eth->h_proto == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = (void *)(eth + 1);

		if ((void *)(ip + 1) > end || ip->version != 6 || ip->hop_limit <= 1)
			return false;
		packet->ipv4 = false;
		packet->len = sizeof(*ip) + bpf_ntohs(ip->payload_len);
		packet->class = ip->priority << 4 | ip->flow_lbl[0] >> 4;
		__builtin_memcpy(packet->key.saddr, &ip->saddr, sizeof(packet->key.saddr));
		__builtin_memcpy(packet->key.daddr, &ip->daddr, sizeof(packet->key.daddr));
		return read_transport(ip + 1, end, sizeof(*ip), ip->nexthdr, packet);
	}
	return false;
}

// Several datagrams in one: a stream of them, which workers carry faster. Devices cut it, or do not.
static __always_inline bool many_datagrams(const struct __sk_buff *skb, const struct packet *packet)
{
	return packet->udp && skb->gso_size;
}

// Whether a packet passes at its size: each segment of a super-frame, or the whole of another.
static __always_inline bool fits(const struct __sk_buff *skb, const struct packet *packet,
				 __u32 largest)
{
	// The outer length has 16 bits.
	if (skb->len + OVERHEAD - ETH_HLEN > 0xffff || many_datagrams(skb, packet))
		return false;
	// 0: not counted yet, as of what a virtual machine's device brings.
	if (skb->gso_size && skb->gso_segs != 1)
		return skb->gso_size + packet->headers <= largest;
	return skb->len - ETH_HLEN <= largest;
}

// Whether the other end of a flow on this node, in the sandbox of that number, takes packets from its
// second device: it has sent some by its own entry, as answers to what it sees of the flow.
static __always_inline bool ready(const struct flow_key *key, const struct rewrite *rewrite,
				  __u32 sandbox)
{
	struct flow_key back = {
		.scope = sandbox | (key->scope >> PROTOCOL << PROTOCOL),
		.sport = key->dport,
		.dport = key->sport,
	};
	struct out_entry *answers;
	struct record *record;
	__u32 number;

	__builtin_memcpy(back.saddr, key->daddr, sizeof(back.saddr));
	__builtin_memcpy(back.daddr, key->saddr, sizeof(back.daddr));
	if (rewrite->side == REWRITE_DESTINATION) {
		__builtin_memcpy(back.saddr, rewrite->addr, sizeof(back.saddr));
		back.sport = rewrite->port;
		if (rewrite->other_port)
			back.dport = rewrite->other_port;
	} else if (rewrite->side == REWRITE_SOURCE) {
		__builtin_memcpy(back.daddr, rewrite->addr, sizeof(back.daddr));
		back.dport = rewrite->port;
		if (rewrite->other_port)
			back.sport = rewrite->other_port;
	}
	answers = bpf_map_lookup_elem(&out_flows, &back);
	if (!answers)
		return false;
	number = answers->record;
	record = bpf_map_lookup_elem(&records, &number);
	return record && record->socket == SOCKET_FREE;
}

// Whether it was too long ago that something new was seen. Another CPU may have seen something since
// this packet's clock was read.
static __always_inline bool too_long(__u64 now, __u64 since)
{
	return (__s64)(now - since) > (__s64)STUCK_AFTER;
}

// Notes how far the sandbox is, for the reset of a flow whose other end is gone. All of a socket's
// packets come by here, one after the other, also those that go to the workers.
static __always_inline void note_sent(struct record *record, const struct packet *packet, __u32 len,
				      __u64 now)
{
	__u32 data = len - ETH_HLEN - packet->headers;
	__u32 end = packet->seq + data;
	__u64 sent = record->sent;
	__u32 before = sent >> 32;

	if (!sent || (__s32)(end - before) > 0) {
		record->ahead = now;
	} else {
		// What is sent once more is no step back.
		end = before;
		// Sent again after the third time-out (RFC 6298), with nothing new in between. The workers'
		// way is another one; where it is no better, nothing is lost by it.
		if (data && too_long(now, record->ahead))
			record->socket = SOCKET_STUCK;
	}
	record->sent = (__u64)end << 32 | packet->ack;
}

// Notes what comes from another node, whoever carries it on: what comes again and again, and has not
// been acknowledged by anybody here, does not arrive by this way (a rule of a firewall that names the
// device).
static __always_inline void note_came(struct record *record, const struct packet *packet, __u64 now)
{
	__u32 data = packet->len - packet->headers;
	__u32 end = packet->seq + data;
	__u64 came = record->came;
	__u64 sent = record->sent;

	if (packet->len <= packet->headers)
		return;
	if (!came || (__s32)(end - (__u32)came) > 0) {
		record->fresh = now;
		record->came = 1ULL << 32 | end;
	} else if (too_long(now, record->fresh) && (!sent || (__s32)(end - (__u32)sent) > 0)) {
		record->socket = SOCKET_STUCK;
	}
}

// Whether it is a packet that a socket of TCP or UDP has made. Others, and what is sent as a whole frame
// (AF_PACKET), may ask a device to complete a checksum where there is none, over an address that was
// looked at.
static __always_inline bool by_its_socket(const struct bpf_sock *socket)
{
	return socket->family == AF_INET || socket->family == AF_INET6;
}

// What leaves the sandbox by its first device, before the TAP has it.
SEC("classifier")
int leave(struct __sk_buff *skb)
{
	struct packet packet = {};
	struct out_entry *entry;
	struct bpf_sock *socket;
	struct record *record;
	__u32 number;
	__u64 now;

	if (!read_packet((void *)(long)skb->data, (void *)(long)skb->data_end, &packet))
		return TC_ACT_UNSPEC;
	packet.key.scope |= skb->tc_classid;
	entry = bpf_map_lookup_elem(&out_flows, &packet.key);
	if (!entry)
		return TC_ACT_UNSPEC;
	number = entry->record;
	record = bpf_map_lookup_elem(&records, &number);
	if (!record)
		return TC_ACT_UNSPEC;
	now = bpf_ktime_get_ns();
	// Nothing says of a datagram whether it was sent before: the agent compares both directions.
	if (!packet.udp)
		note_sent(record, &packet, skb->len, now);
	if (record->socket == SOCKET_STUCK) {
		count(NO_SOCKET);
		return TC_ACT_UNSPEC;
	}
	// Answers come by the second device: only a socket of this very namespace that takes them
	// from there may have them. What the sandbox forwards for others has none.
	socket = skb->sk;
	if (socket && !by_its_socket(socket)) {
		count(NO_SOCKET);
		return TC_ACT_UNSPEC;
	}
	if (!socket || socket->bound_dev_if) {
		record->socket = SOCKET_BOUND;
		count(NO_SOCKET);
		return TC_ACT_UNSPEC;
	}
	if (record->socket != SOCKET_FREE)
		record->socket = SOCKET_FREE;
	if (!holds(entry->network, entry->epoch, now)) {
		count(STALE);
		return TC_ACT_UNSPEC;
	}
	if (entry->other && !ready(&packet.key, &entry->rewrite, entry->other)) {
		count(NO_SOCKET);
		return TC_ACT_UNSPEC;
	}
	if (!fits(skb, &packet, entry->largest)) {
		count(TOO_LARGE);
		return TC_ACT_UNSPEC;
	}
	return bpf_redirect(entry->second, 0);
}

// A device's sum of the whole packet has to follow where no checksum does.
static __always_inline bool another_port(struct __sk_buff *skb, const struct packet *packet,
					 __u32 check, __u32 at, __be16 from, const __be16 *to)
{
	__u64 zero = packet->udp ? BPF_F_MARK_MANGLED_0 : 0;

	return from == *to ||
	       (!bpf_l4_csum_replace(skb, check, from, *to, zero | sizeof(from)) &&
		!bpf_skb_store_bytes(skb, at, to, sizeof(*to),
				     packet->summed ? 0 : BPF_F_RECOMPUTE_CSUM));
}

// Gives one end of a packet another address and port, where the rewrite says so the other end another
// port, and its checksums what becomes of them (RFC 1624). The helpers know of checksums that a device is to complete: those are of the pseudo
// header alone. A datagram without one stays so, and none gets that by chance: its 0 is sent as ffff
// (RFC 768). Pointers into the packet are void from then on.
static __always_inline bool rewritten(struct __sk_buff *skb, const struct packet *packet,
				      const struct rewrite *to)
{
	bool source = to->side == REWRITE_SOURCE;
	const __be32 *from = source ? packet->key.saddr : packet->key.daddr;
	__be16 port = source ? packet->key.sport : packet->key.dport;
	__u32 ports = ETH_HLEN + (packet->ipv4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr));
	__u32 check = ports + (packet->udp ? offsetof(struct udphdr, check) :
					     offsetof(struct tcphdr, check));
	__u64 zero = packet->udp ? BPF_F_MARK_MANGLED_0 : 0;
	__u32 at = ETH_HLEN;
	__u32 diff;

	if (packet->ipv4) {
		at += source ? offsetof(struct iphdr, saddr) : offsetof(struct iphdr, daddr);
		if (bpf_l4_csum_replace(skb, check, from[3], to->addr[3],
					zero | BPF_F_PSEUDO_HDR | sizeof(to->addr[3])) ||
		    bpf_l3_csum_replace(skb, ETH_HLEN + offsetof(struct iphdr, check), from[3],
					to->addr[3], sizeof(to->addr[3])) ||
		    bpf_skb_store_bytes(skb, at, &to->addr[3], sizeof(to->addr[3]), 0))
			return false;
	} else {
		at += source ? offsetof(struct ipv6hdr, saddr) : offsetof(struct ipv6hdr, daddr);
		diff = bpf_csum_diff((void *)from, sizeof(to->addr), (void *)to->addr,
				     sizeof(to->addr), 0);
		if (bpf_l4_csum_replace(skb, check, 0, diff, zero | BPF_F_PSEUDO_HDR) ||
		    bpf_skb_store_bytes(skb, at, to->addr, sizeof(to->addr), 0))
			return false;
		// The helper changes a device's sum of the whole packet (CHECKSUM_COMPLETE) as is
		// right for IPv4. Here address and checksum cancel each other: that sum stays.
		bpf_csum_update(skb, diff);
	}
	// Both protocols begin with their ports.
	at = ports + (source ? offsetof(struct udphdr, source) : offsetof(struct udphdr, dest));
	if (!another_port(skb, packet, check, at, port, &to->port))
		return false;
	if (!to->other_port)
		return true;
	port = source ? packet->key.dport : packet->key.sport;
	at = ports + (source ? offsetof(struct udphdr, dest) : offsetof(struct udphdr, source));
	return another_port(skb, packet, check, at, port, &to->other_port);
}

static __always_inline void note_out(struct record *record, __u64 now, __u32 len)
{
	__sync_fetch_and_add(&record->out_bytes, len);
	__sync_fetch_and_add(&record->out_packets, 1);
	record->last = now;
}

struct outer {
	struct ethhdr eth;
	struct iphdr ip;
	struct udphdr udp;
	struct vxlan_header vxlan;
	struct ethhdr inner;
} __attribute__((packed));

static __always_inline __u16 fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	return ~((sum & 0xffff) + (sum >> 16));
}

// RFC 1071, of a header without options whose checksum is 0.
static __always_inline __u16 header_checksum(const struct iphdr *ip)
{
	const __u16 *words = (const void *)ip;
	__u32 sum = 0;

	for (int i = 0; i < 10; i++)
		sum += words[i];
	return fold(sum);
}

// Writes the hardware addresses of a frame.
static __always_inline bool addressed(struct __sk_buff *skb, const struct hardware *hardware)
{
	return !bpf_skb_store_bytes(skb, 0, hardware, sizeof(*hardware), 0);
}

// Writes the headers of the tunnel around a frame of `len` bytes, and sends it to the underlay.
static __always_inline int encapsulate(struct __sk_buff *skb, const struct packet *packet,
				       const struct out_entry *entry, struct record *record,
				       __u32 len, __u64 now)
{
	struct bpf_redir_neigh hop = {};
	struct outer outer = {};
	__u32 device = entry->device;

	outer.eth.h_proto = bpf_htons(ETH_P_IP);
	outer.ip.version = 4;
	outer.ip.ihl = 5;
	outer.ip.tos = entry->class | (packet->class & entry->keep);
	outer.ip.tot_len = bpf_htons(len + OVERHEAD - ETH_HLEN);
	outer.ip.frag_off = bpf_htons(DO_NOT_FRAGMENT);
	outer.ip.ttl = 64;
	outer.ip.protocol = IPPROTO_UDP;
	outer.ip.saddr = entry->saddr;
	outer.ip.daddr = entry->daddr;
	outer.ip.check = header_checksum(&outer.ip);
	outer.udp.source = entry->sport;
	outer.udp.dest = entry->dport;
	outer.udp.len = bpf_htons(len + sizeof(outer.udp) + sizeof(outer.vxlan));
	outer.vxlan.flags = VXLAN_I;
	outer.vxlan.vni = entry->vni;
	__builtin_memcpy(outer.inner.h_dest, entry->hardware.to, ETH_ALEN);
	__builtin_memcpy(outer.inner.h_source, entry->hardware.from, ETH_ALEN);
	outer.inner.h_proto = packet->ipv4 ? bpf_htons(ETH_P_IP) : bpf_htons(ETH_P_IPV6);
	hop.nh_family = AF_INET;
	hop.ipv4_nh = entry->next_hop;
	// The kernel's own marks for UDP tunnels, so that devices cut super-frames, tunnel and all.
	if (bpf_skb_adjust_room(skb, OVERHEAD, BPF_ADJ_ROOM_MAC,
				BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 |
					BPF_F_ADJ_ROOM_ENCAP_L4_UDP | BPF_F_ADJ_ROOM_ENCAP_L2_ETH |
					BPF_F_ADJ_ROOM_ENCAP_L2(ETH_HLEN))) {
		// It is a tunnel's already, and so are the others: a worker takes them.
		record->socket = SOCKET_STUCK;
		count(FAILED);
		return TC_ACT_SHOT;
	}
	if (bpf_skb_store_bytes(skb, 0, &outer, sizeof(outer), BPF_F_INVALIDATE_HASH)) {
		count(FAILED);
		return TC_ACT_SHOT;
	}
	note_out(record, now, len);
	count(OUT_HIT);
	return bpf_redirect_neigh(device, &hop, sizeof(hop), 0);
}

// What arrives from a sandbox at the host's end of its second device, before the bridge has it.
SEC("classifier")
int push(struct __sk_buff *skb)
{
	struct packet packet = {};
	struct out_entry *entry;
	struct bpf_sock *socket;
	struct record *record;
	__u32 len = skb->len;
	__u32 number, device;
	__u64 now;

	if (!read_packet((void *)(long)skb->data, (void *)(long)skb->data_end, &packet))
		return TC_ACT_UNSPEC;
	packet.key.scope |= skb->tc_classid;
	entry = bpf_map_lookup_elem(&out_flows, &packet.key);
	if (!entry)
		return TC_ACT_UNSPEC;
	now = bpf_ktime_get_ns();
	// The socket comes along through the device.
	socket = skb->sk;
	if (!socket || !by_its_socket(socket)) {
		count(NO_SOCKET);
		return TC_ACT_UNSPEC;
	}
	// `leave` has looked at both. The entry may have become stale since, or a program in the sandbox
	// sends by this device itself: the bridge takes neither.
	if (!holds(entry->network, entry->epoch, now) || !fits(skb, &packet, entry->largest)) {
		count(FAILED);
		return TC_ACT_UNSPEC;
	}
	number = entry->record;
	record = bpf_map_lookup_elem(&records, &number);
	if (!record)
		return TC_ACT_UNSPEC;
	device = entry->device;
	if (entry->rewrite.side && !rewritten(skb, &packet, &entry->rewrite)) {
		count(FAILED);
		return TC_ACT_SHOT;
	}
	if (entry->other == MESH) {
		// The host takes it for its own by this address, and leads it on to the client.
		if (!addressed(skb, &entry->hardware)) {
			count(FAILED);
			return TC_ACT_SHOT;
		}
		note_out(record, now, len);
		count(LOCAL_HIT);
		return bpf_redirect(device, BPF_F_INGRESS);
	}
	if (entry->other) {
		note_out(record, now, len);
		count(LOCAL_HIT);
		bpf_skb_change_type(skb, PACKET_HOST);
		return bpf_redirect_peer(device, 0);
	}
	return encapsulate(skb, &packet, entry, record, len, now);
}

// What the host sends into weft0, before the TAP has it: packets of clients outside, forwarded.
SEC("classifier")
int enter(struct __sk_buff *skb)
{
	struct packet packet = {};
	struct out_entry *entry;
	struct record *record;
	__u32 len = skb->len;
	__u32 number, device;
	__u64 now;

	if (!read_packet((void *)(long)skb->data, (void *)(long)skb->data_end, &packet))
		return TC_ACT_UNSPEC;
	packet.key.scope |= skb->tc_classid;
	entry = bpf_map_lookup_elem(&out_flows, &packet.key);
	if (!entry)
		return TC_ACT_UNSPEC;
	number = entry->record;
	record = bpf_map_lookup_elem(&records, &number);
	if (!record)
		return TC_ACT_UNSPEC;
	now = bpf_ktime_get_ns();
	if (!packet.udp)
		note_sent(record, &packet, len, now);
	if (record->socket == SOCKET_STUCK) {
		count(NO_SOCKET);
		return TC_ACT_UNSPEC;
	}
	// There is no socket here: the host takes answers from weft0, whoever brings them.
	if (record->socket != SOCKET_FREE)
		record->socket = SOCKET_FREE;
	if (!holds(entry->network, entry->epoch, now)) {
		count(STALE);
		return TC_ACT_UNSPEC;
	}
	if (entry->other && !ready(&packet.key, &entry->rewrite, entry->other)) {
		count(NO_SOCKET);
		return TC_ACT_UNSPEC;
	}
	if (!fits(skb, &packet, entry->largest)) {
		count(TOO_LARGE);
		return TC_ACT_UNSPEC;
	}
	device = entry->device;
	if (entry->rewrite.side && !rewritten(skb, &packet, &entry->rewrite)) {
		count(FAILED);
		return TC_ACT_SHOT;
	}
	if (!entry->other)
		return encapsulate(skb, &packet, entry, record, len, now);
	// Where packets leave there is no way straight to a peer. The sandbox takes what comes by the
	// device in between for its own by the device's address.
	if (!addressed(skb, &entry->hardware)) {
		count(FAILED);
		return TC_ACT_SHOT;
	}
	note_out(record, now, len);
	count(LOCAL_HIT);
	return bpf_redirect(device, 0);
}

// Whether these are datagrams that the kernel has merged, outer or inner ones, and not one super-frame.
static __always_inline bool merged(const struct __sk_buff *skb, const struct packet *packet)
{
	return skb->len != OVERHEAD + ETH_HLEN + packet->len || many_datagrams(skb, packet);
}

// Strips the headers of a flow that is known, and delivers what is inside.
static __always_inline int carry_in(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data;
	void *end = (void *)(long)skb->data_end;
	union second_port second = second_port();
	struct outer *outer = data;
	struct packet packet = {};
	struct in_entry *entry;
	struct record *record;
	struct ethhdr inner;
	__u32 number, device, len;
	__u64 now;

	if (data + sizeof(*outer) > end) {
		// Headers in pages: rare. A datagram may be shorter than they can be.
		len = sizeof(*outer) + sizeof(struct ipv6hdr) + sizeof(struct tcphdr);
		if (bpf_skb_pull_data(skb, len < skb->len ? len : skb->len))
			return TC_ACT_UNSPEC;
		data = (void *)(long)skb->data;
		end = (void *)(long)skb->data_end;
		outer = data;
		if (data + sizeof(*outer) > end)
			return TC_ACT_UNSPEC;
	}
	if (outer->eth.h_proto != bpf_htons(ETH_P_IP) || outer->ip.version != 4 ||
	    outer->ip.ihl != 5 || outer->ip.protocol != IPPROTO_UDP ||
	    outer->ip.frag_off & bpf_htons(MORE_FRAGMENTS | FRAGMENT_OFFSET) ||
	    outer->vxlan.flags != VXLAN_I)
		return TC_ACT_UNSPEC;
	if (!read_packet(&outer->inner, end, &packet))
		return TC_ACT_UNSPEC;
	packet.key.scope |= bpf_ntohl(outer->vxlan.vni) >> 8;
	entry = bpf_map_lookup_elem(&in_flows, &packet.key);
	if (!entry)
		return TC_ACT_UNSPEC;
	if (entry->saddr != outer->ip.saddr || entry->daddr != outer->ip.daddr ||
	    (entry->dport != outer->udp.dest && second.port != outer->udp.dest) ||
	    entry->underlay != skb->ifindex) {
		count(OTHER_NODE);
		return TC_ACT_UNSPEC;
	}
	now = bpf_ktime_get_ns();
	number = entry->record;
	record = bpf_map_lookup_elem(&records, &number);
	if (!record)
		return TC_ACT_UNSPEC;
	if (!packet.udp)
		note_came(record, &packet, now);
	if (!holds(entry->network, entry->epoch, now)) {
		count(STALE);
		return TC_ACT_UNSPEC;
	}
	if (record->socket != SOCKET_FREE) {
		count(NO_SOCKET);
		return TC_ACT_UNSPEC;
	}
	if (merged(skb, &packet)) {
		count(MERGED);
		return TC_ACT_UNSPEC;
	}
	// RFC 6040 section 4.2: the mark has to go into the inner header. Rare: a worker does that.
	if ((outer->ip.tos & 1) && (outer->ip.tos & ECN_MASK) != (packet.class & ECN_MASK)) {
		count(MARKED);
		return TC_ACT_UNSPEC;
	}
	// By the port of the data path there is no device: a worker takes it.
	if (entry->by_device) {
		if (outer->udp.dest != second.port)
			return TC_ACT_UNSPEC;
		__sync_fetch_and_add(&record->passed, 1);
		return BY_DEVICE;
	}
	inner = outer->inner;
	device = entry->device;
	len = ETH_HLEN + packet.len;
	if (bpf_skb_adjust_room(skb, -OVERHEAD, BPF_ADJ_ROOM_MAC,
				packet.ipv4 ? BPF_F_ADJ_ROOM_FIXED_GSO
					    : BPF_F_ADJ_ROOM_FIXED_GSO | DECAP_L3_IPV6)) {
		count(FAILED);
		return TC_ACT_SHOT;
	}
	if (bpf_skb_store_bytes(skb, 0, &inner, sizeof(inner), 0) ||
	    (entry->rewrite.side && !rewritten(skb, &packet, &entry->rewrite))) {
		count(FAILED);
		return TC_ACT_SHOT;
	}
	__sync_fetch_and_add(&record->in_bytes, len);
	__sync_fetch_and_add(&record->in_packets, 1);
	record->last = now;
	count(IN_HIT);
	// Its hardware address is that of the first device.
	bpf_skb_change_type(skb, PACKET_HOST);
	return bpf_redirect_peer(device, 0);
}

struct datagram {
	struct ethhdr eth;
	struct iphdr ip;
	struct udphdr udp;
} __attribute__((packed));

// What has come to the second port goes on to the one that the workers read.
static __always_inline int hand_over(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data;
	void *end = (void *)(long)skb->data_end;
	union second_port second = second_port();
	struct datagram *datagram = data;
	bool summed;

	if (!second.port)
		return TC_ACT_UNSPEC;
	if (data + sizeof(*datagram) > end) {
		if (skb->len < sizeof(*datagram) || bpf_skb_pull_data(skb, sizeof(*datagram)))
			return TC_ACT_UNSPEC;
		data = (void *)(long)skb->data;
		end = (void *)(long)skb->data_end;
		datagram = data;
		if (data + sizeof(*datagram) > end)
			return TC_ACT_UNSPEC;
	}
	if (datagram->eth.h_proto != bpf_htons(ETH_P_IP) || datagram->ip.version != 4 ||
	    datagram->ip.ihl != 5 || datagram->ip.protocol != IPPROTO_UDP ||
	    datagram->ip.frag_off & bpf_htons(MORE_FRAGMENTS | FRAGMENT_OFFSET) ||
	    datagram->ip.daddr != second.addr || datagram->udp.dest != second.port)
		return TC_ACT_UNSPEC;
	// Without a checksum it stays. A device's sum of the whole packet has to follow then, and with
	// one both changes cancel each other.
	summed = datagram->udp.check;
	if ((summed && bpf_l4_csum_replace(skb, offsetof(struct datagram, udp.check), second.port,
					   second.data_path,
					   BPF_F_MARK_MANGLED_0 | sizeof(second.port))) ||
	    bpf_skb_store_bytes(skb, offsetof(struct datagram, udp.dest), &second.data_path,
				sizeof(second.data_path), summed ? 0 : BPF_F_RECOMPUTE_CSUM)) {
		count(FAILED);
		return TC_ACT_SHOT;
	}
	return TC_ACT_UNSPEC;
}

// What arrives on the underlay's device, before the host has it.
SEC("classifier")
int pop(struct __sk_buff *skb)
{
	int verdict = carry_in(skb);

	if (verdict == BY_DEVICE)
		return TC_ACT_UNSPEC;
	return verdict == TC_ACT_UNSPEC ? hand_over(skb) : verdict;
}

// What reaches the device of the second port: answers to a client outside, stripped of their headers by
// the kernel, that `pop` has let pass. No node has sent anything else by a way that is known.
SEC("classifier")
int sink(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data;
	void *end = (void *)(long)skb->data_end;
	struct bpf_tunnel_key tunnel = {};
	struct packet packet = {};
	struct in_entry *entry;
	struct record *record;
	__u32 number, device, len;
	__u64 now;

	if (data + INNER_HEADERS > end) {
		// The shortest packet is shorter, and may be whole already.
		len = skb->len < INNER_HEADERS ? skb->len : INNER_HEADERS;
		if (bpf_skb_pull_data(skb, len))
			return TC_ACT_SHOT;
		data = (void *)(long)skb->data;
		end = (void *)(long)skb->data_end;
	}
	// The first form of the structure, which every kernel knows; addresses in the host's byte order.
	if (!read_packet(data, end, &packet) ||
	    bpf_skb_get_tunnel_key(skb, &tunnel, offsetof(struct bpf_tunnel_key, remote_ipv6[1]),
				   0))
		return TC_ACT_SHOT;
	packet.key.scope |= tunnel.tunnel_id;
	entry = bpf_map_lookup_elem(&in_flows, &packet.key);
	if (!entry || !entry->by_device || entry->saddr != bpf_htonl(tunnel.remote_ipv4)) {
		count(FAILED);
		return TC_ACT_SHOT;
	}
	now = bpf_ktime_get_ns();
	number = entry->record;
	record = bpf_map_lookup_elem(&records, &number);
	if (!record || !holds(entry->network, entry->epoch, now)) {
		count(FAILED);
		return TC_ACT_SHOT;
	}
	device = entry->device;
	len = ETH_HLEN + packet.len;
	if ((entry->rewrite.side && !rewritten(skb, &packet, &entry->rewrite)) ||
	    !addressed(skb, &entry->hardware)) {
		count(FAILED);
		return TC_ACT_SHOT;
	}
	__sync_fetch_and_add(&record->in_bytes, len);
	__sync_fetch_and_add(&record->in_packets, 1);
	record->last = now;
	count(IN_HIT);
	return bpf_redirect(device, BPF_F_INGRESS);
}

char _license[] SEC("license") = "Dual MIT/GPL";
