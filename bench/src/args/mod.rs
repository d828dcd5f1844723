//! The command line of `weft bench`.

mod builds;
mod containers;
mod managers;
mod mesh;
mod overlay;
mod services;
mod stacks;

pub(crate) use builds::{BenchBuildsArgs, BuildsTest};
pub(crate) use containers::{BenchContainersArgs, ContainersTest};
pub(crate) use managers::{BenchManagersArgs, ManagersTest};
pub(crate) use mesh::{BenchMeshArgs, FrontChoice, MeshTest};
pub(crate) use overlay::{BedChoice, BenchOverlayArgs, BenchTest, FastPathChoice};
pub(crate) use services::{BenchServicesArgs, ServicesTest};
pub(crate) use stacks::{BenchStacksArgs, StacksTest};

use clap::{Parser, Subcommand};

/// Measure, side by side with the kernel
#[derive(Debug, Parser)]
#[command(name = "bench")]
pub(crate) struct BenchArgs {
    /// What.
    #[command(subcommand)]
    pub(crate) command: BenchCommand,
}

/// `weft bench …`
#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// TCP and UDP between two nodes: weft against kernel veth, bridge and vxlan
    Overlay(BenchOverlayArgs),
    /// A published port: weft against HAProxy and nginx, before the same replicas
    Mesh(BenchMeshArgs),
    /// This build against another one, in pairs: is a change slower?
    Builds(BenchBuildsArgs),
    /// Managers: how soon one replaces another, and what a change, a join and a restart take
    Managers(BenchManagersArgs),
    /// Services: requests that fail while tasks are replaced, and what an update and a create take
    Services(BenchServicesArgs),
    /// Containers: how soon they serve, what weft needs beside each, what an image costs
    Containers(BenchContainersArgs),
    /// Stacks: how soon one serves, and what a large file costs that changes nothing
    Stacks(BenchStacksArgs),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        BenchArgs::command().debug_assert();
        BenchArgs::try_parse_from(["bench"]).unwrap_err();
    }

    #[test]
    fn it_is_a_command_of_the_program() {
        let program = weft_cli::testing::whole(&[crate::command()]);
        let shown = program.get_subcommands().filter(|c| !c.is_hide_set());
        let names: Vec<&str> = shown.map(clap::Command::get_name).collect();
        assert_eq!(names.last(), Some(&"bench"), "{names:?}");
        let words = [
            "weft",
            "bench",
            "overlay",
            "--only",
            "udp",
            "-H",
            "unix:///x",
        ];
        let matches = program.try_get_matches_from(words).unwrap();
        let (name, matches) = matches.subcommand().unwrap();
        assert_eq!(name, "bench");
        let parsed = <BenchArgs as clap::FromArgMatches>::from_arg_matches(matches).unwrap();
        let BenchCommand::Overlay(args) = parsed.command else {
            panic!("{parsed:?}");
        };
        assert_eq!(args.only, [BenchTest::Udp]);
    }
}
