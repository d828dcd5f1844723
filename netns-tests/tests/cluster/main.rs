//! Whole clusters: real `weftd` processes in namespaces, the command line in front of them, the
//! kernel on the other side.

mod as_direct;
mod bad_input;
mod bench;
mod by_hand;
mod by_workers;
mod cable;
mod capture;
mod choice;
mod clones;
mod command_line;
mod connect;
mod containers;
mod day;
mod disks;
mod doctor;
mod door;
mod ejection;
mod ending;
mod failure;
mod fast_path;
mod gossip_forgery;
mod gossip_ways;
mod grpc;
mod health;
mod host_state;
mod impaired;
mod ipv6;
mod limits;
mod live;
mod managers;
mod members;
mod mesh_frame;
mod mesh_frame_ipv6;
mod mtu;
mod narrow;
mod no_lost_request;
mod noise;
mod outside;
mod ping;
mod published;
mod published_abuse;
mod published_host;
mod published_number;
mod published_udp;
mod restart;
mod service;
mod services;
mod static_peer;
mod strict_hosts;
mod swarm;
mod syn_flood;
mod tasks;
mod uplinks;
mod versions;
mod wall;

use weft_netns_tests::{Cluster, Settings};

/// `weft` and `weftd`, built from this tree.
const PROGRAM: &str = env!("CARGO_BIN_EXE_weft-under-test");

/// A swarm of so many nodes.
fn swarm(nodes: u8) -> Cluster {
    Cluster::swarm(
        PROGRAM,
        &Settings {
            nodes,
            ..Settings::default()
        },
    )
}
