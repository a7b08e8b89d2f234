//! What the kernel says, asked with iproute2, nftables and iptables: never with the code under test.

use std::fs;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde_json::Value;

use crate::node::Namespace;

impl Namespace {
    /// `ip -j ARGS`, where nothing printed means an empty list.
    #[track_caller]
    pub fn ip(&self, args: &str) -> Vec<Value> {
        self.json("ip", &format!("-j {args}"))
    }

    /// `bridge -j ARGS`.
    #[track_caller]
    pub fn bridge(&self, args: &str) -> Vec<Value> {
        self.json("bridge", &format!("-j {args}"))
    }

    /// The names of all links but `lo`, in order of index.
    #[track_caller]
    pub fn links(&self) -> Vec<String> {
        let names = self
            .ip("link show")
            .into_iter()
            .map(|it| text(&it, "ifname"));
        names.filter(|it| it != "lo").collect()
    }

    /// `ip -d link show NAME`; none if there is no such link.
    #[track_caller]
    pub fn link(&self, name: &str) -> Option<Value> {
        self.ip("-d link show")
            .into_iter()
            .find(|it| it["ifname"] == name)
    }

    /// Addresses of `link` with their prefix, in the kernel's order, without link-local ones.
    #[track_caller]
    pub fn addresses(&self, link: &str) -> Vec<IpNetwork> {
        self.address_info(link)
            .iter()
            .map(network)
            .filter(|it| !is_link_local(it.ip()))
            .collect()
    }

    /// `addr_info` of `link`: all addresses with scope, flags and the like.
    #[track_caller]
    pub fn address_info(&self, link: &str) -> Vec<Value> {
        let all = self.ip("addr show");
        let Some(link) = all.iter().find(|it| it["ifname"] == link) else {
            return Vec::new();
        };
        link["addr_info"].as_array().unwrap().clone()
    }

    /// Routes of the main table in both families but those the kernel made itself: `DST [via GW] dev LINK`.
    #[track_caller]
    pub fn routes(&self) -> Vec<String> {
        let both = ["-4 -N route show", "-6 -N route show"]
            .map(|it| self.ip(it))
            .concat();
        both.iter()
            .filter(|it| it["protocol"] != "2" && it["protocol"] != "kernel")
            .map(route)
            .collect()
    }

    /// The value of a sysctl named by its path below `/proc/sys`; none if there is no such file.
    pub fn sysctl(&self, path: &str) -> Option<String> {
        self.enter(|| fs::read_to_string(format!("/proc/sys/{path}")).ok())
            .map(|it| it.trim().to_owned())
    }

    /// Writes a sysctl.
    #[track_caller]
    pub fn set_sysctl(&self, path: &str, value: &str) {
        self.enter(|| fs::write(format!("/proc/sys/{path}"), value))
            .unwrap();
    }

    /// `nft list ruleset`, handles and counters left out.
    #[track_caller]
    pub fn nft(&self) -> String {
        self.run("nft", &["list", "ruleset"])
    }

    /// The rules of a nat chain as `iptables -S` prints them; none if there is no such chain.
    #[track_caller]
    pub fn nat_chain(&self, version: u8, chain: &str) -> Option<Vec<String>> {
        let list = || {
            iptables::new(version == 6)
                .unwrap()
                .list("nat", chain)
                .unwrap()
        };
        let rules: Vec<String> = self
            .enter(list)
            .into_iter()
            .filter(|it| !it.is_empty())
            .collect();
        (!rules.is_empty()).then_some(rules)
    }

    /// Chains and rules of the nat tables of both families as `iptables -S` prints them, policies left out.
    #[track_caller]
    pub fn nat(&self) -> Vec<String> {
        let list = |six: bool| iptables::new(six).unwrap().list_table("nat").unwrap();
        let both = self.enter(|| [list(false), list(true)].concat());
        both.into_iter()
            .filter(|it| !it.is_empty() && !it.starts_with("-P "))
            .collect()
    }

    #[track_caller]
    fn json(&self, program: &str, args: &str) -> Vec<Value> {
        let args: Vec<&str> = args.split_whitespace().collect();
        let out = self.run(program, &args);
        if out.trim().is_empty() {
            Vec::new()
        } else {
            serde_json::from_str(&out).unwrap()
        }
    }
}

/// The text under `key`, empty if there is none.
pub fn text(object: &Value, key: &str) -> String {
    object[key].as_str().unwrap_or_default().to_owned()
}

/// The flag list of a link or of `linkinfo` holds `flag`.
pub fn has_flag(object: &Value, flag: &str) -> bool {
    object["flags"]
        .as_array()
        .is_some_and(|flags| flags.iter().any(|it| it == flag))
}

fn network(info: &Value) -> IpNetwork {
    let prefix = u8::try_from(info["prefixlen"].as_u64().unwrap()).unwrap();
    IpNetwork::new(text(info, "local").parse().unwrap(), prefix).unwrap()
}

fn route(route: &Value) -> String {
    let via = route["gateway"]
        .as_str()
        .map(|it| format!(" via {it}"))
        .unwrap_or_default();
    format!("{}{via} dev {}", text(route, "dst"), text(route, "dev"))
}

fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}
