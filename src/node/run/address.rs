//! Where this node listens and where others reach it. Shell: it asks the system for names and interfaces.

use std::net::{IpAddr, SocketAddr};

use nix::ifaddrs::getifaddrs;
use nix::unistd::{Uid, User};

use super::RunError;

/// Most addresses that a node tells others: a host with more interfaces names the right ones with `--advertise`.
const ADDRESSES_MAX: usize = 8;

/// The address that `HOST:PORT` stands for.
pub(super) async fn resolve(listen: &str) -> Result<SocketAddr, RunError> {
    let failed = |cause: String| RunError::Address { address: listen.to_owned(), cause };
    let mut found = tokio::net::lookup_host(listen).await.map_err(|error| failed(error.to_string()))?;
    found.next().ok_or_else(|| failed("the name has no address".to_owned()))
}

/// What others are told: what the user said, else where the node listens, else the addresses of this host's interfaces.
pub(super) fn reachable_at(advertise: &[String], listen: SocketAddr) -> Vec<String> {
    if !advertise.is_empty() {
        return advertise.to_vec();
    }
    if !listen.ip().is_unspecified() {
        return vec![listen.to_string()];
    }
    let mut found: Vec<IpAddr> = interfaces().into_iter().filter(|ip| ip.is_ipv4() || listen.is_ipv6()).collect();
    found.sort_by_key(|ip| (ip.is_loopback(), ip.is_ipv6(), *ip));
    found.dedup();
    // A loopback address means another host there: it is told only where there is nothing else, as on a laptop without network.
    if found.iter().any(|ip| !ip.is_loopback()) {
        found.retain(|ip| !ip.is_loopback());
    }
    found.truncate(ADDRESSES_MAX);
    found.into_iter().map(|ip| SocketAddr::new(ip, listen.port()).to_string()).collect()
}

fn interfaces() -> Vec<IpAddr> {
    // Without interfaces there is nothing to tell, and others learn the address from the connection that this node makes.
    let Ok(addresses) = getifaddrs() else { return Vec::new() };
    let ip = |address: nix::ifaddrs::InterfaceAddress| {
        let address = address.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
    };
    let link_local = |ip: &IpAddr| matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
    addresses.filter_map(ip).filter(|ip| !link_local(ip)).collect()
}

/// The name of the user whom this process runs as.
pub(super) fn own_user() -> String {
    let uid = Uid::effective();
    match User::from_uid(uid) {
        Ok(Some(user)) => user.name,
        _ => uid.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_are_told_an_address_that_they_can_dial() {
        let listen: SocketAddr = "10.1.2.3:7470".parse().unwrap();
        assert_eq!(reachable_at(&[], listen), ["10.1.2.3:7470"]);
        assert_eq!(reachable_at(&["db.example:1".to_owned()], listen), ["db.example:1"]);
        let everywhere = reachable_at(&[], "0.0.0.0:7470".parse().unwrap());
        assert!(!everywhere.is_empty() && everywhere.len() <= ADDRESSES_MAX);
        assert!(everywhere.iter().all(|address| address.ends_with(":7470") && !address.starts_with("0.0.0.0")));
    }

    #[tokio::test]
    async fn an_address_that_is_none_is_named() {
        let error = resolve("no port here").await.unwrap_err().to_string();
        assert!(error.contains("`no port here`"), "{error}");
    }
}
