//! The PROXY protocol: who a connection came from, said at its head (haproxy.org, "The PROXY
//! protocol", versions 1 and 2).

use std::net::SocketAddr;

use proxy_header::{ProxiedAddress, ProxyHeader};
use weft_model::objects::ClientAddress;

/// What a connection to a replica begins with: nothing where no header was asked for. `to` is the
/// address that the client connected to.
pub(super) fn header(address: ClientAddress, client: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A listener of both families names IPv4 clients by mapped addresses.
    let plain = |addr: SocketAddr| SocketAddr::new(addr.ip().to_canonical(), addr.port());
    let header = ProxyHeader::with_address(ProxiedAddress::stream(plain(client), plain(to)));
    let written = match address {
        ClientAddress::Keep | ClientAddress::Node => Ok(()),
        ClientAddress::ProxyV1 => header.encode_v1(&mut bytes),
        ClientAddress::ProxyV2 => header.encode_v2(&mut bytes),
    };
    if let Err(error) = written {
        // Two addresses of one family always fit.
        tracing::error!(%error, "no header of the PROXY protocol");
        bytes.clear();
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_name_both_ends() {
        let (client, to) = (
            "[::ffff:198.51.100.7]:4000".parse().expect("address"),
            "192.0.2.1:8000".parse().expect("address"),
        );
        let of = |address| header(address, client, to);
        assert!(of(ClientAddress::Keep).is_empty() && of(ClientAddress::Node).is_empty());
        assert_eq!(
            of(ClientAddress::ProxyV1),
            b"PROXY TCP4 198.51.100.7 192.0.2.1 4000 8000\r\n"
        );
        let second = of(ClientAddress::ProxyV2);
        assert_eq!(second[..12], *b"\r\n\r\n\0\r\nQUIT\n");
        assert_eq!(
            second[12..],
            [
                0x21, 0x11, 0, 12, 198, 51, 100, 7, 192, 0, 2, 1, 0x0f, 0xa0, 0x1f, 0x40
            ]
        );
        let six = header(
            ClientAddress::ProxyV1,
            "[2001:db8::7]:4000".parse().expect("address"),
            "[2001:db8::1]:8000".parse().expect("address"),
        );
        assert_eq!(six, b"PROXY TCP6 2001:db8::7 2001:db8::1 4000 8000\r\n");
    }
}
