//! The command line of `weft bench overlay`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use weft_cli::FormatArgs;

/// `weft bench overlay`
#[derive(Debug, Args)]
pub(crate) struct BenchOverlayArgs {
    /// Tests to run; may be repeated (default: all but `endpoints`, `flows`, `flood` and `iperf3`,
    /// about five minutes)
    #[arg(long, value_name = "TEST", value_delimiter = ',')]
    pub(crate) only: Vec<BenchTest>,
    /// Measured pairs, alternating
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=50))]
    pub(crate) pairs: u8,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=120))]
    pub(crate) seconds: u8,
    /// TCP congestion control; may be repeated (default: cubic, and bbr where the kernel has it).
    /// Tests about something else use the first one
    #[arg(long = "cc", value_name = "NAME", value_delimiter = ',')]
    pub(crate) congestion: Vec<String>,
    /// Also draw a picture of rates and of the distribution of round trip times
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
    /// Start of the names of its labs
    #[arg(long, default_value = "bench")]
    pub(crate) name: String,
    /// How.
    #[command(flatten)]
    pub(crate) format: FormatArgs,
}

/// A test of `weft bench overlay`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BenchTest {
    /// One TCP stream between two nodes
    Tcp1,
    /// Eight TCP streams at once
    Tcp8,
    /// Datagrams of 64, 512 and 1400 bytes from one thread that sends one with each send()
    Udp,
    /// 64 bytes there and back, one at a time
    Rr,
    /// 64 bytes there and back, 64 at once
    Rr64,
    /// Small requests over 16 kept TCP connections to tasks that sleep 1 ms before they answer
    Tasks,
    /// One TCP stream within one node, against veth and bridge
    Local,
    /// One TCP stream through a virtual address, against a direct one
    Vip,
    /// 100 and 1,000 endpoints on the client's node, against 1: at rest, TCP and UDP (some minutes)
    Endpoints,
    /// 100,000 flows through a virtual address, against 1: TCP and 64 bytes there and back
    Flows,
    /// One TCP stream while a machine that is no node floods the receiver's VXLAN port with garbage,
    /// against the same without; says how much there was and where it ended
    Flood,
    /// TCP with iperf3 as the generator, one stream and eight; left out where it is not installed
    Iperf3,
    /// TCP, UDP and round trips against Open vSwitch with its userspace datapath; left out where it
    /// is not installed
    Ovs,
    /// Every one of them
    All,
}
