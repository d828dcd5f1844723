//! The command line of `weft bench overlay`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use weft_cli::FormatArgs;

/// `weft bench overlay`
#[derive(Debug, Args)]
pub(crate) struct BenchOverlayArgs {
    /// Tests to run; may be repeated (default: all but `endpoints`, `flows`, `flood`, `iperf3` and
    /// `ovs`, about eight minutes on each bed)
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
    #[arg(
        long = "cc",
        visible_alias = "congestion",
        value_name = "NAME",
        value_delimiter = ','
    )]
    pub(crate) congestion: Vec<String>,
    /// Link between the nodes, on both sides
    #[arg(long, default_value = "veth")]
    pub(crate) bed: BedChoice,
    /// Busy loops beside every run, each of which wants a CPU for itself
    #[arg(long, value_name = "LOOPS", default_value_t = 0)]
    pub(crate) beside: u8,
    /// Whether weft may leave flows to programs in the kernel; `both` measures each way in every round
    /// of tests against the kernel. Other tests use the first one
    #[arg(long, default_value = "off")]
    pub(crate) fast_path: FastPathChoice,
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

/// A bed of `weft bench overlay`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BedChoice {
    /// A veth as the kernel makes it: everything is offloaded
    Veth,
    /// As most devices of clouds: datagrams are segmented, TCP and tunnels are not; GRO
    Nic,
    /// Nothing is segmented; GRO
    Plain,
    /// One after the other
    All,
}

/// Ways of weft that `weft bench overlay` measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FastPathChoice {
    /// Every frame passes the workers
    Off,
    /// Where weftd can
    Auto,
    /// One beside the other
    Both,
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
    /// 64 bytes there and back over a kept TCP connection, one at a time
    TcpRr,
    /// One TCP stream at half of the rate that the kernel reaches, and 64 bytes there and back beside it
    Half,
    /// Small requests over 16 kept TCP connections to tasks that sleep 1 ms before they answer
    Tasks,
    /// One TCP stream within one node, against veth and bridge
    Local,
    /// TCP through a virtual address, one stream and eight, against IPVS and nftables of the kernel,
    /// as far as they are there; and one stream against a direct one
    Vip,
    /// TCP from outside through a published port, one stream and eight, against IPVS, nftables and
    /// HAProxy, as far as they are there
    Published,
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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{BenchArgs, BenchCommand};

    fn parsed(words: &[&str]) -> Result<BenchOverlayArgs, clap::Error> {
        let words = ["bench", "overlay"].iter().chain(words);
        match BenchArgs::try_parse_from(words)?.command {
            BenchCommand::Overlay(args) => Ok(args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn without_options_the_machine_is_quiet_and_the_link_a_veth() {
        let usual = parsed(&[]).unwrap();
        assert_eq!((usual.bed, usual.beside), (BedChoice::Veth, 0));
        assert_eq!(usual.fast_path, FastPathChoice::Off);
        assert_eq!((usual.pairs, usual.seconds), (5, 2));
    }

    #[test]
    fn conditions_are_chosen() {
        let words = ["--bed", "nic", "--beside", "2", "--fast-path", "both"];
        let some = parsed(&words).unwrap();
        assert_eq!((some.bed, some.beside), (BedChoice::Nic, 2));
        assert_eq!(some.fast_path, FastPathChoice::Both);
        let tests = parsed(&["--only", "tcp-rr,half"]).unwrap();
        assert_eq!(tests.only, [BenchTest::TcpRr, BenchTest::Half]);
        let services = parsed(&["--only", "vip,published"]).unwrap();
        assert_eq!(services.only, [BenchTest::Vip, BenchTest::Published]);
        for option in ["--cc", "--congestion"] {
            let controls = parsed(&[option, "bbr,cubic"]).unwrap().congestion;
            assert_eq!(controls, ["bbr", "cubic"]);
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for words in [
            ["--bed", "tap"],
            ["--beside", "-1"],
            ["--beside", "256"],
            ["--fast-path", "on"],
        ] {
            parsed(&words).unwrap_err();
        }
    }
}
