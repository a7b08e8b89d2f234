//! Rules as we write them beside rules as `iptables-save` prints them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use cni_net::firewall::iptables::{Rule, Saved};
use cni_spec::address::masked;
use ipnetwork::IpNetwork;

use super::COMMENT_LENGTH;

/// Do both mean the same? The order of options, their spelling and that of addresses do not matter.
pub(super) fn same(one: &Rule, other: &Rule) -> bool {
    one.chain == other.chain && options(one) == options(other)
}

/// Are these the same rules in the same order?
pub(super) fn same_list(saved: &[&Rule], wanted: &[Rule]) -> bool {
    saved.len() == wanted.len()
        && saved
            .iter()
            .zip(wanted)
            .all(|(one, other)| same(one, other))
}

/// Options with their values, each in one spelling, behind `! ` if negated. Which extension an option is of goes
/// without saying.
fn options(rule: &Rule) -> BTreeSet<String> {
    let mut options = BTreeSet::new();
    let mut words = rule.words.iter().map(String::as_str).peekable();
    let mut negated = false;
    while let Some(word) = words.next() {
        if word == "!" {
            negated = true;
            continue;
        }
        let mut values = Vec::new();
        while let Some(value) = words.next_if(|it| *it != "!" && !it.starts_with('-')) {
            values.push(value);
        }
        if let Some(option) = option(word, &values) {
            options.insert(if negated {
                format!("! {option}")
            } else {
                option
            });
        }
        negated = false;
    }
    options
}

/// `None` for what says nothing.
fn option(word: &str, values: &[&str]) -> Option<String> {
    let value = values.join(" ");
    let (word, value) = match word {
        "-m" | "--match" => return None,
        "-p" | "--protocol" => ("-p", value.to_lowercase()),
        "-s" | "--source" | "--src" => ("-s", network(&value)?),
        "-d" | "--destination" | "--dst" => ("-d", network(&value)?),
        "-j" | "--jump" => ("-j", value),
        // What is longer, the tool cuts without a word.
        "--comment" => ("--comment", value.chars().take(COMMENT_LENGTH).collect()),
        "--destination-port" => ("--dport", value),
        "--destination-ports" => ("--dports", value),
        word => (word, value),
    };
    Some(format!("{word} {value}"))
}

/// With a length and without host bits; `None` for all addresses.
fn network(text: &str) -> Option<String> {
    match text.parse::<IpNetwork>() {
        Ok(network) if network.prefix() == 0 => None,
        Ok(network) => Some(masked(network).to_string()),
        Err(_) => Some(text.to_owned()),
    }
}

/// A rule that rewrites the destination of packets to a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Redirect {
    pub(super) protocol: String,
    pub(super) port: u16,
    /// The node's address that packets go to; `None` for every one.
    pub(super) destination: Option<IpAddr>,
    /// Where they are sent to; `None` if that is not an address and a port.
    pub(super) to: Option<(IpAddr, u16)>,
}

impl Redirect {
    /// `None` if the rule is another one.
    pub(super) fn of(rule: &Rule) -> Option<Redirect> {
        if rule.value("-j") != Some("DNAT") {
            return None;
        }
        let to = rule
            .value("--to-destination")
            .and_then(|it| it.parse::<std::net::SocketAddr>().ok());
        let destination = rule.value("-d").and_then(|it| it.parse::<IpNetwork>().ok());
        Some(Redirect {
            protocol: rule.value("-p")?.to_lowercase(),
            port: rule.value("--dport")?.parse().ok()?,
            destination: destination.map(|it| it.ip()),
            to: to.map(|it| (it.ip(), it.port())),
        })
    }

    /// Is this about the same port as the other one, and about no more addresses than it?
    pub(super) fn overtakes(&self, other: &Redirect) -> bool {
        let as_narrow = other.destination.is_none() || other.destination == self.destination;
        self.protocol == other.protocol && self.port == other.port && as_narrow
    }
}

/// Where the rules of a chain lead.
pub(super) fn redirects<'a>(
    saved: &'a Saved,
    chain: &'a str,
) -> impl Iterator<Item = Redirect> + 'a {
    saved.rules_of(chain).filter_map(Redirect::of)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(saved: &str, ours: &str, expected: bool) {
        let rule = |text: &str| Rule::new("C", text.split(' '));
        assert_eq!(
            same(&rule(saved), &rule(ours)),
            expected,
            "{saved} and {ours}"
        );
    }

    #[test]
    fn a_rule_is_recognised_as_iptables_save_prints_it() {
        let saved = "-s 10.0.0.0/24 -p tcp -m tcp --dport 80 -j M";
        check(saved, "-p tcp --dport 80 -s 10.0.0.2/24 -j M", true);
        check(saved, "-p tcp --dport 80 -s 10.0.1.2/24 -j M", false);
        check(saved, "-p tcp --dport 81 -s 10.0.0.2/24 -j M", false);
        check(saved, "-p tcp --dport 80 -j M", false);
        check(
            "-p tcp -m tcp --dport 80 -j M",
            "-p tcp --dport 80 -s 0.0.0.0/0 -j M",
            true,
        );
        check("-s 127.0.0.1/32 -j M", "-s 127.0.0.1 -j M", true);
        check("-s 2001:db8::/64 -j M", "-s 2001:db8::2/64 -j M", true);
        check(
            "-p udp -m multiport --dports 1,2 -j M",
            "-m multiport -p udp --destination-ports 1,2 -j M",
            true,
        );
        check("! -s 10.0.0.0/24 -j M", "-s 10.0.0.0/24 -j M", false);
        check("! -s 10.0.0.0/24 -j M", "! --source 10.0.0.9/24 -j M", true);
    }

    #[test]
    fn what_is_narrower_overtakes() {
        let redirect = |destination: Option<&str>| Redirect {
            protocol: "tcp".to_owned(),
            port: 80,
            destination: destination.map(|it| it.parse().unwrap()),
            to: None,
        };
        let (all, one, other) = (
            redirect(None),
            redirect(Some("192.0.2.1")),
            redirect(Some("192.0.2.2")),
        );
        assert!(all.overtakes(&all) && one.overtakes(&one) && one.overtakes(&all));
        assert!(!all.overtakes(&one) && !one.overtakes(&other));
        assert!(!all.overtakes(&Redirect {
            port: 81,
            ..all.clone()
        }));
        assert!(!all.overtakes(&Redirect {
            protocol: "udp".to_owned(),
            ..all.clone()
        }));
    }
}
