//! What random names, addresses and paths stand for, so that two runs can be compared.

use serde_json::Value;

use crate::ip::text;
use crate::node::{Node, Pod};

/// MACs that begin like this were chosen by the test, and are called what they are.
pub const CHOSEN: &str = "02:00:00:00:00:";

/// What a run made up, and what to call it.
#[derive(Clone, Default)]
pub struct Names {
    /// Longest first, so that no name is replaced within another.
    known: Vec<(String, String)>,
}

impl Names {
    /// Cables are called after the pod at the other end, MACs after their link, namespaces after their pod. The MACs of
    /// the host's ends have one name: a bridge without one of its own takes the lowest of them, whichever that is.
    ///
    /// `spaces` is the host, called `host`, and the pods, each with its links as `ip -j addr` tells them.
    pub fn of(node: &Node, pods: &[&Pod], spaces: &[(&str, &[Value])]) -> Names {
        let mut names = Names::default();
        for pod in pods {
            names.learn(&pod.path(), &format!("NETNS-{}", pod.id));
        }
        names.learn(&node.dir().display().to_string(), "NODE");
        let host = spaces.iter().find(|it| it.0 == "host").map(|it| it.1);
        for (place, links) in spaces.iter().filter(|it| it.0 != "host") {
            for link in links.iter().filter(|it| is_veth(it)) {
                let other = host.into_iter().flatten();
                let other = other
                    .clone()
                    .find(|it| it["ifindex"] == link["link_index"] && is_veth(it));
                if let Some(other) = other {
                    let called = format!("VETH-{place}-{}", text(link, "ifname"));
                    names.learn(&text(other, "ifname"), &called);
                    names.learn(&text(other, "address"), "MAC-port");
                }
            }
        }
        for (place, links) in spaces {
            for link in links.iter().filter(|it| has_mac(it)) {
                let called = names.plain(&text(link, "ifname"));
                names.learn(&text(link, "address"), &format!("MAC-{place}-{called}"));
            }
        }
        names
    }

    /// Calls `what` by `name` from now on, unless it has a name already.
    pub fn learn(&mut self, what: &str, name: &str) {
        let new = !what.is_empty() && self.known.iter().all(|it| it.0 != what);
        if new {
            self.known.push((what.to_owned(), name.to_owned()));
            self.known.sort_by_key(|it| std::cmp::Reverse(it.0.len()));
        }
    }

    /// `text` with everything called by its name; a cable that nobody knows is `VETH`.
    pub fn plain(&self, text: &str) -> String {
        let mut plain = text.to_owned();
        for (what, name) in &self.known {
            plain = plain.replace(what.as_str(), name);
        }
        without_strays(&plain)
    }
}

/// It has a MAC that nobody chose; a bridge that lost its last port has none.
fn has_mac(link: &Value) -> bool {
    let mac = text(link, "address");
    link["link_type"] == "ether" && mac != "00:00:00:00:00:00" && !mac.starts_with(CHOSEN)
}

fn is_veth(link: &Value) -> bool {
    link["linkinfo"]["info_kind"] == "veth"
}

/// `veth` and eight hexadecimal digits are a name that a plugin made up.
fn without_strays(text: &str) -> String {
    let mut pieces = text.split("veth");
    let mut plain = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let is_name = piece
            .get(..8)
            .is_some_and(|it| it.bytes().all(|it| it.is_ascii_hexdigit()));
        plain.push_str(if is_name { "VETH" } else { "veth" });
        plain.push_str(if is_name { &piece[8..] } else { piece });
    }
    plain
}
