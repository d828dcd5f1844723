//! `bench-spin`: loops that do nothing but use CPUs, as a busy neighbour does.

use std::hint::black_box;
use std::io::{self, Read};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::Context;
use clap::Args;

/// What `bench-spin` takes.
#[derive(Debug, Args)]
pub(crate) struct SpinArgs {
    /// How many at once
    #[arg(value_parser = clap::value_parser!(u8).range(1..))]
    loops: u8,
}

/// Spins until `input` ends: a pipe from the process that started this one ends with that process,
/// in whatever way it ends.
pub(crate) fn run(args: &SpinArgs, input: &mut impl Read) -> anyhow::Result<ExitCode> {
    let over = AtomicBool::new(false);
    let ended = thread::scope(|scope| {
        let mut started = Ok(());
        for _ in 0..args.loops {
            let thread = thread::Builder::new().name("spin".to_owned());
            if let Err(error) = thread.spawn_scoped(scope, || spin(&over)) {
                started = Err(error);
                break;
            }
        }
        let ended = started.and_then(|()| io::copy(input, &mut io::sink()));
        // Before the scope waits for them.
        over.store(true, Ordering::Relaxed);
        ended
    });
    ended.context("cannot spin")?;
    Ok(ExitCode::SUCCESS)
}

/// Additions, and not the processor's hint for waiting loops: a hypervisor takes the CPU away from
/// those, which a neighbour with work to do does not suffer.
fn spin(over: &AtomicBool) {
    let mut count = 0u64;
    while !over.load(Ordering::Relaxed) {
        count = black_box(count.wrapping_add(1));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use super::*;

    #[test]
    fn loops_end_with_their_input() {
        let (held, mut input) = UnixStream::pair().unwrap();
        let spinning = thread::spawn(move || run(&SpinArgs { loops: 2 }, &mut input));
        // The one thing here that is about time passing.
        thread::sleep(Duration::from_millis(50));
        assert!(!spinning.is_finished());
        drop(held);
        spinning.join().unwrap().unwrap();
    }
}
