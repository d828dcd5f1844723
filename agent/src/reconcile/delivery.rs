//! What a task sent last is still with the kernel of its sandbox when its program has ended: in the
//! queues of sockets that nobody has open any more. It needs the sandbox's port and namespace to
//! reach its reader.

use std::io::{self, BufRead, BufReader};
use std::time::Duration;

use weft_sys::netns::Netns;

/// How long the readers may take, at least: the grace period of the task may be longer.
pub(super) const DELIVERED_WITHIN: Duration = Duration::from_secs(10);

/// A reader that takes nothing for so long is taken for gone.
const STALLED: Duration = Duration::from_secs(3);

/// States of `/proc/net/tcp` whose queue is no data: a listener's, a handshake's, a past one's.
const WITHOUT_DATA: [&str; 4] = ["02", "03", "06", "0A"];

/// How far the kernel is. Time is an argument.
#[derive(Debug)]
pub(super) struct Delivery {
    limit: Duration,
    /// The least that there was to send, and since when.
    least: Option<(u64, Duration)>,
}

impl Delivery {
    /// Of a program that has ended just now.
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, least: None }
    }

    /// Whether nothing more is to be waited for, `since` after the end, while `unsent` bytes have not
    /// been acknowledged.
    pub(super) fn is_over(&mut self, unsent: u64, since: Duration) -> bool {
        let progress = self.least.is_none_or(|(least, _)| unsent < least);
        let (_, at) = match self.least {
            Some(known) if !progress => known,
            _ => *self.least.insert((unsent, since)),
        };
        unsent == 0 || since >= self.limit || since.saturating_sub(at) >= STALLED
    }
}

/// Bytes that TCP sockets of a namespace have to send, or that their readers have not acknowledged.
/// A shutdown that is not acknowledged counts as one.
///
/// # Errors
/// The namespace or its tables cannot be read.
pub(super) fn unsent(netns: &Netns) -> io::Result<u64> {
    netns.run_in(|| Ok(table("tcp")? + table("tcp6")?))?
}

/// By a table of the calling thread's namespace.
fn table(name: &str) -> io::Result<u64> {
    match std::fs::File::open(format!("/proc/thread-self/net/{name}")) {
        Ok(file) => sum(BufReader::new(file)),
        // A kernel without IPv6 has no table for it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

fn sum(table: impl BufRead) -> io::Result<u64> {
    let mut sum = 0;
    for line in table.lines().skip(1) {
        sum += queued(&line?).unwrap_or(0);
    }
    Ok(sum)
}

/// `sl local remote state tx:rx …`, numbers in base 16.
fn queued(line: &str) -> Option<u64> {
    let mut fields = line.split_ascii_whitespace().skip(3);
    let state = fields.next()?;
    let (to_send, _) = fields.next()?.split_once(':')?;
    if WITHOUT_DATA.contains(&state) {
        return Some(0);
    }
    u64::from_str_radix(to_send, 16).ok()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn it_goes_on_while_readers_take_something_and_ends_in_time() {
        let seconds = Duration::from_secs;
        let mut delivery = Delivery::new(seconds(10));
        assert!(!delivery.is_over(5_000, seconds(0)));
        assert!(!delivery.is_over(5_000, seconds(2)));
        assert!(!delivery.is_over(4_000, seconds(4)), "some was taken");
        assert!(!delivery.is_over(4_000, seconds(6)));
        assert!(delivery.is_over(4_000, seconds(7)), "nobody reads");
        assert!(delivery.is_over(0, seconds(7)));
        let mut delivery = Delivery::new(seconds(10));
        let slow = |at: u64| (50_000 - at * 10, seconds(at));
        for at in 0..10 {
            let (unsent, since) = slow(at);
            assert!(!delivery.is_over(unsent, since), "{at}");
        }
        assert!(delivery.is_over(slow(10).0, seconds(10)), "no longer");
        assert!(Delivery::new(seconds(10)).is_over(0, Duration::ZERO));
    }

    #[test]
    fn listeners_handshakes_and_what_is_over_have_no_data() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr
   0: 00000000:1F40 00000000:0000 0A 00000005:00000003 00:00000000
   1: 0100007F:1F40 0100007F:C350 01 00000010:00000000 00:00000000
   2: 0100007F:1F40 0100007F:C351 04 00000001:00000000 00:00000000
   3: 0100007F:1F40 0100007F:C352 06 00000000:00000000 03:00000000
   4: 0100007F:1F40 0100007F:C353 02 00000001:00000000 01:00000000
   5: garbage
";
        assert_eq!(sum(table.as_bytes()).unwrap(), 17);
    }

    #[test]
    fn the_kernel_says_what_a_closed_socket_has_to_send() {
        let netns = Netns::create_anonymous().expect("netns");
        let pair = || {
            weft_sys::netlink::Netlink::open()
                .and_then(|mut links| links.set_up("lo", true))
                .expect("lo is up");
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let reader = TcpStream::connect(listener.local_addr()?)?;
            Ok::<_, io::Error>((listener.accept()?.0, reader))
        };
        let (mut writer, mut reader) = netns.run_in(pair).expect("enter").expect("a pair");
        assert_eq!(unsent(&netns).unwrap(), 0);
        writer.set_nonblocking(true).unwrap();
        let mut written = 0;
        while let Ok(more) = writer.write(&[7; 4096]) {
            written += more;
        }
        drop(writer);
        assert!(unsent(&netns).unwrap() > 1, "the reader has not read");
        let mut read = Vec::new();
        reader.read_to_end(&mut read).expect("all of it");
        assert_eq!(read.len(), written);
        let begun = std::time::Instant::now();
        while unsent(&netns).unwrap() > 0 {
            assert!(begun.elapsed() < Duration::from_secs(10), "{netns:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
