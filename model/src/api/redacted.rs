//! What logs may see of calls and answers with tokens and keys.

use std::fmt;

use super::swarm::{
    CaRotate, JoinToken, SwarmInitReply, SwarmJoin, SwarmRestoreReply, SwarmUnlock, UnlockKeyReply,
};

impl fmt::Debug for SwarmInitReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SwarmInitReply")
            .field("node_id", &self.node_id)
            .field("manager_addr", &self.manager_addr)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for SwarmRestoreReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SwarmRestoreReply")
            .field("node_id", &self.node_id)
            .field("manager_addr", &self.manager_addr)
            .field("nodes", &self.nodes)
            .field("networks", &self.networks)
            .field("services", &self.services)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for SwarmJoin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SwarmJoin")
            .field("remote_addr", &self.remote_addr)
            .field("advertise_addr", &self.advertise_addr)
            .field("listen_addr", &self.listen_addr)
            .field("data_path_addr", &self.data_path_addr)
            .field("availability", &self.availability)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken")
            .field("manager_addr", &self.manager_addr)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for CaRotate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CaRotate")
            .field("signing_ca_cert", &self.signing_ca_cert)
            .field("node_cert_expiry", &self.node_cert_expiry)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for UnlockKeyReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UnlockKeyReply(..)")
    }
}

impl fmt::Debug for SwarmUnlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SwarmUnlock(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::NodeId;

    #[test]
    fn tokens_and_keys_are_in_no_debug_text() {
        let secret = || "the-secret".to_owned();
        let there = || "192.0.2.1:2377".to_owned();
        let node_id = NodeId::from_entropy(7);
        let init = SwarmInitReply {
            node_id: node_id.clone(),
            worker_token: secret(),
            manager_addr: there(),
            unlock_key: Some(secret()),
        };
        let restored = SwarmRestoreReply {
            node_id,
            worker_token: secret(),
            manager_addr: there(),
            nodes: 1,
            networks: 2,
            services: 3,
        };
        let join = SwarmJoin {
            token: secret(),
            remote_addr: there(),
            advertise_addr: None,
            listen_addr: None,
            data_path_addr: None,
            availability: None,
        };
        let token = JoinToken {
            token: secret(),
            manager_addr: there(),
        };
        let rotate = CaRotate {
            signing_ca_key: Some(secret()),
            ..CaRotate::default()
        };
        let unlock_key = secret();
        let key = UnlockKeyReply { unlock_key };
        let unlock_key = secret();
        let unlock = SwarmUnlock { unlock_key };
        let with_address = format!("{init:?} {restored:?} {join:?} {token:?}");
        assert_eq!(with_address.matches("192.0.2.1:2377").count(), 4);
        let all = format!("{with_address} {rotate:?} {key:?} {unlock:?}");
        assert!(!all.contains(&secret()), "{all}");
    }
}
