//! Masquerading by `nft`: a rule for each address in one chain of one table, its owner in the rule's comment.
//!
//! Pure: what is there comes as [`Rule`]s, what is to be done goes out as statements.

use cni_net::firewall::name::hash;
use cni_net::firewall::nft::Transaction;
use cni_net::firewall::ruleset::{Family, Removal, Rule, Verdict};
use ipnetwork::IpNetwork;

use super::Owner;
use super::iptables::subnet;

pub(super) const TABLE: &str = "cni_plugins_masquerade";
/// Where the rules are.
pub(super) const CHECKS: &str = "masq_checks";
/// Where packets come from to the rules.
pub(super) const POSTROUTING: &str = "postrouting";

const ABOUT_TABLE: &str = "Masquerading for plugins from github.com/containernetworking/plugins";
const ABOUT_CHECKS: &str =
    "Masquerade traffic from certain IPs to any (non-multicast) IP outside their subnet";

/// The longest comment that the kernel takes, in bytes.
const COMMENT_LENGTH: usize = 128;

/// What is there.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The rules of [`CHECKS`].
    pub(super) checks: Vec<Rule>,
    /// The rules of [`POSTROUTING`].
    pub(super) postrouting: Vec<Rule>,
}

/// The comment of an attachment's rules.
fn comment(owner: &Owner<'_>) -> String {
    let [network, ifname, id] =
        [owner.network, owner.ifname, owner.container_id].map(|text| text.replace('"', ""));
    let mut comment = format!(
        "{}, net: {network}, if: {ifname}, id: {id}",
        instance(owner)
    );
    comment.truncate(comment.floor_char_boundary(COMMENT_LENGTH));
    comment
}

/// How the comments of an attachment's rules begin, and no others.
pub(super) fn instance(owner: &Owner<'_>) -> String {
    let attachment = hash(16, &format!("{}:{}", owner.ifname, owner.container_id));
    format!("{}-{attachment}", hash(16, owner.network))
}

/// A rule for each address in the place of those that the attachment has already; table and chains if need be.
///
/// `described` is whether new ones get comments; old releases of nft and of Linux refuse that.
pub(super) fn add(
    owner: &Owner<'_>,
    addresses: &[IpNetwork],
    seen: &Seen,
    described: bool,
) -> Transaction {
    let about = |text: &str| {
        if described {
            format!(" {{ comment \"{text}\" ; }}")
        } else {
            String::new()
        }
    };
    let mut statements = Vec::new();
    // Declaring what is there, or writing it anew, makes the kernel wait for all that may be using it.
    if !leads_to_checks(&seen.postrouting) {
        statements.extend([
            format!("add table inet {TABLE}{}", about(ABOUT_TABLE)),
            format!("add chain inet {TABLE} {CHECKS}{}", about(ABOUT_CHECKS)),
            format!("add chain inet {TABLE} {POSTROUTING} {{ type nat hook postrouting priority 100 ; }}"),
            format!("flush chain inet {TABLE} {POSTROUTING}"),
            format!("add rule inet {TABLE} {POSTROUTING} ip daddr 224.0.0.0/4 return"),
            format!("add rule inet {TABLE} {POSTROUTING} ip6 daddr ff00::/8 return"),
            format!("add rule inet {TABLE} {POSTROUTING} goto {CHECKS}"),
        ]);
    }
    let instance = instance(owner);
    let earlier = of_instance(&instance, &seen.checks);
    statements.extend(
        earlier.map(|rule| format!("delete rule inet {TABLE} {CHECKS} handle {}", rule.handle)),
    );
    let comment = comment(owner);
    for address in addresses {
        let family = if address.is_ipv4() { "ip" } else { "ip6" };
        let (ip, subnet) = (address.ip(), subnet(address));
        statements.push(format!(
            "add rule inet {TABLE} {CHECKS} {family} saddr {ip} {family} daddr != {subnet} masquerade comment \"{comment}\""
        ));
    }
    Transaction::Statements(statements)
}

/// What is to be removed: the attachment's rules, whatever their addresses. `checks` are the rules of [`CHECKS`].
pub(super) fn removals(instance: &str, checks: &[Rule]) -> Vec<Removal> {
    let (family, table) = (Family::Inet, TABLE);
    let rules = of_instance(instance, checks);
    rules
        .map(|rule| Removal::Rule {
            family,
            table,
            chain: CHECKS.to_owned(),
            handle: rule.handle,
        })
        .collect()
}

/// The instances of this network that have rules and are no valid attachment's.
pub(super) fn garbage<'a>(
    network: &str,
    valid: &[(&str, &str)],
    checks: &'a [Rule],
) -> Vec<&'a str> {
    let ours = format!("{}-", hash(16, network));
    let valid: Vec<String> = valid
        .iter()
        .map(|&(container_id, ifname)| {
            instance(&Owner {
                network,
                container_id,
                ifname,
            })
        })
        .collect();
    let mut found = Vec::new();
    for comment in checks.iter().filter_map(|rule| rule.comment.as_deref()) {
        let Some(instance) = comment
            .get(..ours.len() + 16)
            .filter(|it| it.starts_with(&ours))
        else {
            continue;
        };
        if !valid.iter().any(|it| it == instance) && !found.contains(&instance) {
            found.push(instance);
        }
    }
    found
}

fn of_instance<'a>(instance: &str, checks: &'a [Rule]) -> impl Iterator<Item = &'a Rule> {
    checks.iter().filter(move |rule| {
        rule.comment
            .as_deref()
            .is_some_and(|comment| comment.starts_with(instance))
    })
}

/// Are these the three rules that let all but multicast through to the checks?
fn leads_to_checks(postrouting: &[Rule]) -> bool {
    let [ipv4, ipv6, rest] = postrouting else {
        return false;
    };
    let returns = |rule: &Rule, first: u8| {
        let compared = rule.values.last().and_then(|value| value.first());
        rule.verdict == Some(Verdict::Return) && compared == Some(&first)
    };
    let is_goto = matches!(&rest.verdict, Some(Verdict::Goto(chain)) if chain == CHECKS);
    returns(ipv4, 224) && returns(ipv6, 0xff) && is_goto && rest.values.is_empty()
}
