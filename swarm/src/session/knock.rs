//! Managers that did not answer and do again. A node without a session hears of that at once, and not
//! when the pause between its attempts is over.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Before each knock, and for how long one waits: what was lost on the way is sent anew then. A session
/// that opens as usual is there before the first one.
const PACE: Duration = Duration::from_millis(250);

/// What is known of managers while there is no session.
#[derive(Debug, Default)]
pub(super) struct Knocks {
    /// Whether each took a connection at the last knock. Who did is left alone: it has its reasons for
    /// not giving a session.
    opened: BTreeMap<SocketAddr, bool>,
}

impl Knocks {
    /// A session was asked for there, in vain: whether it answers at all is to be found out.
    pub(super) fn forget(&mut self, manager: &str) {
        if let Ok(manager) = manager.parse() {
            self.opened.remove(&manager);
        }
    }

    /// There is a session: nothing counts any more.
    pub(super) fn clear(&mut self) {
        self.opened.clear();
    }

    /// Waits until a manager takes a connection that took none before. Cancel-safe.
    pub(super) async fn opened(&mut self, managers: impl Fn() -> Vec<SocketAddr>) -> SocketAddr {
        loop {
            sleep(PACE).await;
            let mut knocks = JoinSet::new();
            for manager in managers() {
                if self.opened.get(&manager) != Some(&true) {
                    knocks.spawn(async move { (manager, knock(manager).await) });
                }
            }
            while let Some(knocked) = knocks.join_next().await {
                // One that was given up by the runtime says nothing.
                let Ok((manager, opens)) = knocked else {
                    continue;
                };
                let before = self.opened.insert(manager, opens);
                if opens && before == Some(false) {
                    return manager;
                }
            }
        }
    }
}

async fn knock(manager: SocketAddr) -> bool {
    let connected = timeout(PACE, TcpStream::connect(manager)).await;
    connected.is_ok_and(|stream| stream.is_ok())
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    #[tokio::test]
    async fn who_was_silent_is_told_and_who_always_answers_is_not() {
        let any_port = || SocketAddr::from(([127, 0, 0, 1], 0));
        let answers = TcpListener::bind(any_port()).await.unwrap();
        // It has its port, so that nobody else takes it, and does not listen yet.
        let quiet = TcpSocket::new_v4().unwrap();
        quiet.bind(any_port()).unwrap();
        let silent = quiet.local_addr().unwrap();
        let all = [answers.local_addr().unwrap(), silent];
        let managers = move || all.to_vec();
        let mut knocks = Knocks::default();
        let early = timeout(PACE * 4, knocks.opened(managers)).await;
        assert!(early.is_err(), "{early:?}");
        let open = quiet.listen(16).unwrap();
        let opened = timeout(Duration::from_secs(20), knocks.opened(managers)).await;
        assert_eq!(opened, Ok(silent));
        // Once: it is one that answers from now on.
        let again = timeout(PACE * 4, knocks.opened(managers)).await;
        assert!(again.is_err(), "{again:?}");
        drop(open);
        // After an attempt that came to nothing it is looked at anew.
        knocks.forget(&silent.to_string());
        let closed = timeout(PACE * 4, knocks.opened(managers)).await;
        assert!(closed.is_err(), "{closed:?}");
        assert_eq!(knocks.opened.get(&silent), Some(&false));
    }
}
