//! Instructions of the packet path, counted by callgrind: the same on a busy machine as on an idle
//! one, where times are not. Needs `valgrind`; without it, says so and counts nothing.
//!
//! Each case is set up and done once to warm it up, then counted in a process of its own.

use std::hint::black_box;
use std::io::Write;
use std::net::IpAddr;
use std::ops::Range;
use std::process::{Command, ExitCode};
use std::time::Duration;

use weft_benches::frames::{address, datagrams, info, segments, tcp, tcp_super};
use weft_benches::network::{NET, switch};
use weft_benches::services::{Mesh, datagram, services, vip};
use weft_vxlan::PortSource;
use weft_wire::gro::Coalescer;
use weft_wire::{PortId, VnetHdr, checksum, frame, gso, mac_for_ip, offload, vxlan};

/// Sets something up and gives the work that counts to its argument, once or twice.
type Case = fn(&dyn Fn(&mut dyn FnMut()));

const CASES: &[(&str, Case)] = &[
    ("parse a frame", parse),
    ("checksum of 1408 bytes", sum),
    ("encap and split 64 KB of TCP", split),
    ("parse and coalesce 64 KB of TCP", coalesce_segments),
    (
        "parse and coalesce 40 datagrams of 64 B",
        coalesce_datagrams,
    ),
    ("FDB lookup among 1000", fdb),
    ("egress among 1000", egress),
    ("virtio header of a small frame", plain_header),
    ("virtio header of a super-frame", super_header),
    ("decap and ingress among 1000", ingress),
    ("VIP lookup among 1000", virtual_address),
    ("insert a flow beside 1000", insert),
    ("forward a datagram of a flow among 1000", known),
    ("expire 1000 flows", expire),
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let one = match args.as_slice() {
        [option, name] if option == "--case" => CASES.iter().find(|case| case.0 == name),
        _ => None,
    };
    if let Some((_, case)) = one {
        case(&measured);
        return ExitCode::SUCCESS;
    }
    let counted = args.iter().any(|arg| arg == "--bench");
    match run_all(counted) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&error);
            ExitCode::FAILURE
        }
    }
}

fn run_all(counted: bool) -> Result<(), String> {
    if !counted {
        // As a test: the work alone.
        CASES.iter().for_each(|(_, case)| case(&measured));
        return Ok(());
    }
    if Command::new("valgrind").arg("--version").output().is_err() {
        say("instructions are not counted: valgrind is not installed (`apt-get install valgrind`)");
        return Ok(());
    }
    for (name, _) in CASES {
        say(&format!("{name:<42} {:>12} instructions", count(name)?));
    }
    Ok(())
}

/// Counts one case in a process of its own.
fn count(name: &str) -> Result<u64, String> {
    let program = std::env::current_exe().map_err(|e| e.to_string())?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .args(["--collect-atstart=no", "--toggle-collect=*measured*"])
        .arg(program)
        .args(["--case", name])
        .output()
        .map_err(|e| format!("cannot run valgrind: {e}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let collected = said.lines().find_map(|line| line.split_once("Collected :"));
    collected
        .and_then(|(_, count)| count.trim().parse().ok())
        .filter(|count| *count > 0)
        .ok_or_else(|| format!("valgrind counted nothing for {name:?}:\n{said}"))
}

/// The function whose instructions callgrind counts, by its name.
#[inline(never)]
fn measured(work: &mut dyn FnMut()) {
    work();
}

fn say(text: &str) {
    // Nobody is left to tell when it is closed.
    drop(writeln!(std::io::stdout(), "{text}"));
}

fn parse(measure: &dyn Fn(&mut dyn FnMut())) {
    let bytes = tcp(1, 2, 1400);
    let mut work = || assert!(frame::parse(black_box(&bytes)).is_ok());
    work();
    measure(&mut work);
}

fn sum(measure: &dyn Fn(&mut dyn FnMut())) {
    let data = vec![0x5a; 1408];
    let mut work = || {
        black_box(checksum::sum(black_box(&data)));
    };
    work();
    measure(&mut work);
}

fn split(measure: &dyn Fn(&mut dyn FnMut())) {
    let (bytes, vnet) = tcp_super(64_000);
    let at = info(&bytes);
    let mut prefix = [0; vxlan::HEADER_LEN];
    vxlan::emit(NET, &mut prefix);
    let mut headers = vec![0; gso::arena_len(prefix.len())];
    let mut out = vec![gso::Segment::default(); gso::MAX_SEGMENTS];
    let mut work = || {
        let split = gso::split(&bytes, &vnet, &at, &prefix, &mut headers, &mut out);
        assert!(split.is_ok());
    };
    work();
    measure(&mut work);
}

fn coalesce_segments(measure: &dyn Fn(&mut dyn FnMut())) {
    let (bytes, vnet) = tcp_super(64_000);
    merge(segments(&bytes, &vnet), measure);
}

fn coalesce_datagrams(measure: &dyn Fn(&mut dyn FnMut())) {
    merge(datagrams(40, 64), measure);
}

fn merge((original, ranges): (Vec<u8>, Vec<Range<usize>>), measure: &dyn Fn(&mut dyn FnMut())) {
    let mut to = Coalescer::default();
    for measure in [&|work: &mut dyn FnMut()| work(), measure] {
        // Taking a run rewrites its first header.
        let mut arena = original.clone();
        measure(&mut || {
            for range in &ranges {
                let at = info(&arena[range.clone()]);
                black_box(to.offer(&arena, range.clone(), &at, 1, false));
            }
            assert!(to.take(&mut arena).is_some());
        });
    }
}

fn fdb(measure: &dyn Fn(&mut dyn FnMut())) {
    let switch = switch(1000);
    let mac = mac_for_ip(IpAddr::V4(address(500)));
    let mut work = || assert!(switch.lookup(NET, black_box(mac)).is_some());
    work();
    measure(&mut work);
}

fn egress(measure: &dyn Fn(&mut dyn FnMut())) {
    let switch = switch(1000);
    let ips = [IpAddr::V4(address(1))];
    let source = PortSource {
        port: PortId(1),
        mac: mac_for_ip(ips[0]),
        ips: &ips,
    };
    let bytes = tcp(1, 500, 64);
    let mut work = || {
        if let Ok(parsed) = frame::parse(black_box(&bytes)) {
            black_box(switch.egress(NET, source, &bytes, &parsed));
        }
    };
    work();
    measure(&mut work);
}

fn plain_header(measure: &dyn Fn(&mut dyn FnMut())) {
    header(tcp(1, 500, 64), VnetHdr::NONE, measure);
}

fn super_header(measure: &dyn Fn(&mut dyn FnMut())) {
    let (frame, vnet) = tcp_super(64_000);
    header(frame, vnet, measure);
}

fn header(mut frame: Vec<u8>, vnet: VnetHdr, measure: &dyn Fn(&mut dyn FnMut())) {
    let parsed = frame::parse(&frame);
    let mut work = || {
        if let Ok(parsed) = &parsed {
            let settled = offload::settle(&mut frame, black_box(&vnet), black_box(parsed));
            assert!(black_box(settled).is_ok());
        }
    };
    work();
    measure(&mut work);
}

fn ingress(measure: &dyn Fn(&mut dyn FnMut())) {
    let switch = switch(1000);
    let mut datagram = vec![0; vxlan::HEADER_LEN];
    if let Some(header) = datagram.first_chunk_mut() {
        vxlan::emit(NET, header);
    }
    datagram.extend(tcp(2, 1, 64));
    let vtep = IpAddr::from([192, 0, 2, 2]);
    let mut work = || {
        let decided = switch
            .admit(vtep, black_box(&datagram))
            .and_then(|(vni, inner)| {
                let bytes = &datagram[inner];
                frame::parse(bytes).map(|info| switch.ingress(vni, vtep, bytes, &info))
            });
        assert!(black_box(decided).is_ok());
    };
    work();
    measure(&mut work);
}

fn virtual_address(measure: &dyn Fn(&mut dyn FnMut())) {
    let services = services(1000, 3);
    let ip = IpAddr::V4(vip(500));
    let mut work = || assert!(services.vip(NET, black_box(ip)).is_some());
    work();
    measure(&mut work);
}

fn insert(measure: &dyn Fn(&mut dyn FnMut())) {
    let mut mesh = Mesh::new(services(1, 3));
    mesh.open(1000);
    let (mut frame, at) = datagram(1000);
    measure(&mut || assert!(mesh.forward(&mut frame, &at)));
}

fn known(measure: &dyn Fn(&mut dyn FnMut())) {
    let mut mesh = Mesh::new(services(1, 3));
    mesh.open(1000);
    let (mut frame, at) = datagram(500);
    measure(&mut || assert!(mesh.forward(&mut frame, &at)));
}

fn expire(measure: &dyn Fn(&mut dyn FnMut())) {
    let mut mesh = Mesh::new(services(1, 3));
    mesh.open(1000);
    mesh.now = mesh.now.after(Duration::from_secs(60));
    measure(&mut || while mesh.table.expire(mesh.now, 1000) > 0 {});
    assert!(mesh.table.is_empty());
}
