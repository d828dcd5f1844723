//! Marks of congestion and classes of service on packets between nodes. The kernel marks, and the
//! kernel's TCP reacts.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use socket2::SockRef;
use weft_dataplane::{Config, Dataplane, StartError};
use weft_sys::netns::Netns;
use weft_sys::udp::{RecvBatch, VxlanSocket};
use weft_wire::DropReason;
use weft_wire::ecn::Dscp;

use crate::common::{
    Node, Sandbox, Underlay, VIP, VXLAN, echo, inside, nodes_on, nodes_with, publish, sandbox,
    sandbox_at, transfer,
};

const ECT_0: u32 = 2;
const EF: u32 = 46 << 2;

fn fixed(config: &Config) -> Result<Dataplane, StartError> {
    Dataplane::start(&Config {
        dscp: Dscp::Fixed(10),
        ..config.clone()
    })
}

fn inherited(config: &Config) -> Result<Dataplane, StartError> {
    Dataplane::start(&Config {
        dscp: Dscp::Inherit,
        ..config.clone()
    })
}

type Start = fn(&Config) -> Result<Dataplane, StartError>;

#[test]
fn packets_to_other_nodes_have_the_marks_of_the_frame_and_the_class_that_was_asked() {
    let ways: [(Start, u32, u32); 3] = [
        (Dataplane::start, ECT_0, 0),
        (fixed, 10 << 2 | ECT_0, 10 << 2),
        (inherited, EF | ECT_0, 0),
    ];
    for (start, marked, plain) in ways {
        let [a, b] = nodes_with(1, start);
        let client = sandbox(1, "10.0.1.2", 0, true);
        let far = sandbox(2, "10.0.1.3", 0, true);
        publish(&a, 1, &[&client], &[&far], &b, &[]);
        // This test is the other node.
        drop(b.plane);
        let node =
            b.ns.run_in(|| VxlanSocket::bind(SocketAddr::new(b.underlay, VXLAN)).expect("bind"))
                .expect("thread");
        let socket = client
            .ns
            .run_in(|| UdpSocket::bind((client.ip, 0)).expect("bind"))
            .expect("thread");
        // A train of datagrams of one class, and one of another in its midst.
        for class in [EF | ECT_0, EF | ECT_0, 0, EF | ECT_0] {
            SockRef::from(&socket).set_tos_v4(class).expect("IP_TOS");
            socket.send_to(b"to and fro", (far.ip, 7)).expect("send");
        }
        let mut classes = Vec::new();
        let mut recv = RecvBatch::new(8);
        let deadline = Instant::now() + Duration::from_secs(5);
        while classes.len() < 4 {
            assert!(Instant::now() < deadline, "no more than {classes:x?}");
            for index in 0..recv.recv(&node).expect("receive") {
                let message = recv.message(index).expect("message");
                let each = message.gso_size.map_or(message.range.len(), usize::from);
                let count = message.range.len().div_ceil(each);
                classes.extend(std::iter::repeat_n(u32::from(message.class), count));
            }
        }
        classes.sort_unstable();
        assert_eq!(classes, [plain, marked, marked, marked]);
    }
}

#[test]
fn a_mark_of_the_underlay_slows_a_sender_that_knows_marks_and_costs_others_the_packet() {
    for family in [Underlay::V4, Underlay::V6] {
        let [a, b] = nodes_on(family, 1);
        let mtu = family.mtu();
        let [client, server] = [2, 3].map(|host| {
            let made = sandbox_at(u32::from(host), inside(VIP, host), 0, true, mtu);
            in_ns(&made.ns, || {
                std::fs::write("/proc/sys/net/ipv4/tcp_ecn", "1").expect("tcp_ecn");
            });
            made
        });
        publish(&a, 1, &[&client], &[&server], &b, &[]);
        publish(&b, 1, &[&server], &[&client], &a, &[]);
        let to = SocketAddr::new(server.ip, 80);
        transfer(&client, &server, to, 1 << 22);
        assert_ne!(counted(&server, "IpExt", "InECT0Pkts"), 0);
        assert_eq!(counted(&server, "IpExt", "InCEPkts"), 0);

        mark(&b, "ect0");
        transfer(&client, &server, to, 1 << 22);
        assert_ne!(counted(&server, "IpExt", "InCEPkts"), 0);
        assert_ne!(counted(&client, "TcpExt", "TCPDeliveredCE"), 0);
        assert_eq!(dropped(&b, DropReason::Congestion), 0);
        // No router may do that; some do.
        assert!(echo(&client.ns, server.ip));
        mark(&b, "not-ect");
        assert!(!echo(&client.ns, server.ip), "a ping knows no marks");
        assert_ne!(dropped(&b, DropReason::Congestion), 0);
    }
}

/// Marks packets of the data path with these bits as routers do when their queues are long.
fn mark(node: &Node, bits: &str) {
    let ip = match node.underlay {
        IpAddr::V4(_) => "ip",
        IpAddr::V6(_) => "ip6",
    };
    let rules = format!(
        "table inet congestion {{ chain pre {{ type filter hook prerouting priority -300; \
         udp dport {VXLAN} {ip} ecn {bits} {ip} ecn set ce; }}; }}"
    );
    let said = in_ns(&node.ns, || {
        Command::new("nft").arg(&rules).output().expect("nft")
    });
    assert!(said.status.success(), "{said:?}");
}

fn in_ns<T: Send>(ns: &Netns, run: impl FnOnce() -> T + Send) -> T {
    ns.run_in(run).expect("thread")
}

fn dropped(node: &Node, reason: DropReason) -> u64 {
    let workers = node.plane.counters().iter();
    workers.map(|w| w.underlay.get(reason)).sum()
}

/// A number of the kernel's in a sandbox, as in `nstat`.
fn counted(sandbox: &Sandbox, group: &str, name: &str) -> u64 {
    // Of the reading thread's namespace, where `/proc/net` is of its process.
    let path = "/proc/thread-self/net/netstat";
    let text = in_ns(&sandbox.ns, || std::fs::read_to_string(path).expect(path));
    let mut lines = text.lines().filter(|l| l.starts_with(group));
    let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
    let mut both = names.split(' ').zip(values.split(' '));
    let (_, value) = both.find(|(n, _)| *n == name).expect("a known number");
    value.parse().expect("a number")
}
