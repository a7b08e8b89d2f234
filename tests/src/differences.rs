//! Where ours and the reference part, and why: all that the exam for both lets pass.
//!
//! Ours follows v1.9.1. What it does otherwise than 1.1.1 alone, releases between the two changed.

use serde_json::Value;

use crate::cni::Release;
use crate::state::Lines;

/// Only from 1.1.1.
const OLDER: &[Release] = &[Release::V1_1_1];
/// Only from v1.9.1.
const NEWER: &[Release] = &[Release::V1_9_1];
/// From every release.
const ALL: &[Release] = &Release::ALL;

/// A line that only one of the two says after a step.
pub struct Deviation<'a> {
    /// The plugin's name.
    pub plugin: &'a str,
    /// Its configuration.
    pub conf: &'a Value,
    /// What was done until now.
    pub history: &'a History,
    /// Whether ours says it; else the reference does.
    pub ours: bool,
    /// What the two answered, ours first: the result, or the error's `msg`.
    pub answers: [&'a str; 2],
    /// The line, as [`State`](crate::state::State) spells it, or one that begins with `answer`.
    pub line: &'a str,
    /// All that the other says.
    pub other: &'a Lines,
}

/// What has been done to a node.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// The last verb.
    pub verb: &'static str,
    /// How far its pods are.
    pub pods: [Stage; 2],
    /// Any of them has been attached, by either.
    pub attached: bool,
    /// There was a DEL without `CNI_NETNS`.
    pub without_netns: bool,
}

/// How far a pod is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// There was no ADD, or there was a DEL.
    #[default]
    Away,
    /// ADD failed, and DEL has not come yet.
    Refused,
    /// ADD succeeded.
    Attached,
    /// And once more.
    Again,
}

/// A reason for lines to differ.
pub struct Difference {
    /// A name for it.
    pub id: &'static str,
    /// From which releases ours differs so.
    pub from: &'static [Release],
    /// Why it is right to differ, in a sentence.
    pub reason: &'static str,
    /// Whether it is the reason for this one.
    pub explains: fn(&Deviation) -> bool,
}

/// All of them.
pub const DIFFERENCES: &[Difference] = &[
    Difference {
        id: "codes",
        from: ALL,
        reason: "errors have the specification's codes; the reference says 999 to most, and nobody depends on it",
        explains: |it| it.line.starts_with("answer code: "),
    },
    Difference {
        id: "details",
        from: ALL,
        reason: "`details` adds the cause and what to do next",
        explains: |it| it.ours && it.line.starts_with("answer details: "),
    },
    Difference {
        id: "full stop",
        from: OLDER,
        reason: "later releases end no error with one",
        explains: |it| it.line.starts_with("answer msg: ") && it.otherwise(" time\"", " time.\""),
    },
    Difference {
        id: "1.1.0",
        from: OLDER,
        reason: "1.1.1 does not know version 1.1.0, does not list it, and is given 1.0.0 instead",
        explains: |it| {
            let listed =
                it.line.contains("plugin supports [") && it.line.starts_with("answer details: ");
            let listed = listed || it.otherwise("[1.0.0 1.1.0]", "[1.0.0]");
            let given =
                it.line.starts_with("answer cniVersion: ") && it.conf["cniVersion"] == "1.1.0";
            listed || given
        },
    },
    Difference {
        id: "order",
        from: OLDER,
        reason: "later releases print the keys of 1.x in the order of the alphabet, and no empty `dns`",
        explains: |it| {
            let layout = it.line.starts_with("answer layout: \"{");
            it.is_1_x() && (layout || (!it.ours && it.line == "answer dns: {}"))
        },
    },
    Difference {
        id: "index",
        from: ALL,
        reason: "an index beside the leases, which may be deleted, finds an owner's address without reading them all",
        explains: |it| it.ours && it.line.starts_with("store ") && it.line.contains("/.index/"),
    },
    Difference {
        id: "modes",
        from: OLDER,
        reason: "later releases let only root read a lease",
        explains: |it| it.line.starts_with("store ") && it.otherwise(" 0600: ", " 0644: "),
    },
    Difference {
        id: "txqueuelen",
        from: OLDER,
        reason: "later releases leave the pod's end the kernel's queue; 1.1.1 sets it to 0 on both ends",
        explains: |it| {
            it.ours && !it.line.starts_with("host ") && it.line.ends_with(" txqlen: 1000")
        },
    },
    Difference {
        id: "keep_addr_on_down",
        from: OLDER,
        reason: "later releases keep IPv6 addresses when the link goes down",
        explains: |it| it.otherwise("keep_addr_on_down: 1", "keep_addr_on_down: 0"),
    },
    Difference {
        id: "nodad",
        from: ALL,
        reason: "no IPv6 address is left tentative: the allocation is unique by itself",
        explains: |it| {
            it.line.contains(" family=inet6 ")
                && it.same_without(&[" nodad=true", " tentative=true"])
        },
    },
    Difference {
        id: "exists",
        from: OLDER,
        reason: "later releases name both ends of the cable that is there",
        explains: |it| {
            let end = it.answers[1].strip_prefix("container veth name provided (");
            let end = end.and_then(|it| it.strip_suffix(") already exists"));
            let later = |end| {
                format!("container veth name (\"{end}\") peer provided (\"VETH\") already exists")
            };
            it.line.starts_with("answer msg: ")
                && end.map(later).is_some_and(|text| text == it.answers[0])
        },
    },
    Difference {
        id: "route in words",
        from: OLDER,
        reason: "later releases add metric, scope and table to the route that could not be added",
        explains: |it| {
            it.otherwise(
                "dev eth0 metric 0 (Scope: universe, Table: 0)'",
                "dev eth0'",
            )
        },
    },
    Difference {
        id: "decoder",
        from: ALL,
        reason: "which structure a value does not fit into is told in the decoder's words, which change with its releases",
        explains: |it| {
            it.line.starts_with("answer msg: ")
                && it
                    .answers
                    .iter()
                    .all(|it| it.contains("json: cannot unmarshal "))
        },
    },
    Difference {
        id: "dns",
        from: OLDER,
        reason: "later releases keep the name servers that IPAM found unless the configuration has its own",
        explains: |it| {
            let shown = it.line.starts_with("answer dns") || it.line.starts_with("answer layout: ");
            shown && !it.conf["ipam"]["resolvConf"].is_null()
        },
    },
    Difference {
        id: "layer 2 CHECK",
        from: ALL,
        reason: "the reference's CHECK asks IPAM also where there is none, and so fails on every layer-2 network",
        explains: |it| {
            it.history.verb == "CHECK"
                && it.line.starts_with("answer ")
                && it.answers[1] == "no plugin name provided"
        },
    },
    Difference {
        id: "route without gateway",
        from: OLDER,
        reason: "later releases find a route again that the result has without a gateway",
        explains: |it| {
            let not_found =
                it.answers[1].starts_with("Expected Route ") && it.answers[1].contains("GW:<nil>");
            it.history.verb == "CHECK" && it.line.starts_with("answer ") && not_found
        },
    },
    Difference {
        id: "fields of a route",
        from: ALL,
        reason: "every field of a route reaches the kernel; v1.9.1 drops sizes and cannot find its routes again, 1.1.1 knows no field",
        explains: |it| {
            let route = it.line.starts_with("answer routes[0].")
                || it.line.contains(" route: dev=eth0 dst=10.7.0.0/16 ");
            let not_found = it.history.verb == "CHECK" && it.line.starts_with("answer ");
            (route || not_found) && !it.conf["ipam"]["routes"][0]["mtu"].is_null()
        },
    },
    Difference {
        id: "loopback",
        from: ALL,
        reason: "the reference puts every version's name on the layout of 1.x",
        explains: |it| {
            let version = it.conf["cniVersion"].as_str().unwrap_or_default();
            it.plugin == "loopback" && it.line.starts_with("answer ") && version.starts_with("0.")
        },
    },
    Difference {
        id: "arguments of the other",
        from: ALL,
        reason: "`IP=` is host-local's and no reason for bridge to refuse; the reference wants IgnoreUnknown with it",
        explains: |it| {
            it.plugin == "bridge" && it.answers[1] == "ARGS: unknown args [\"IP=10.1.2.9\"]"
        },
    },
    Difference {
        id: "two masquerades",
        from: ALL,
        reason: "no rule of a pod's second address comes too late, and DEL does not stumble over the first's chain",
        explains: |it| {
            let rules = it.line.contains(" iptables-save nat: ") || it.line.starts_with("answer ");
            it.conf["ipMasq"] == true
                && it.conf["ipam"]["ranges"][1][0]["subnet"] == "10.1.3.0/24"
                && rules
        },
    },
    Difference {
        id: "families in CHECK",
        from: OLDER,
        reason: "1.1.1's CHECK looks for the rules of one family in the other's",
        explains: |it| {
            let not_found = it.answers[1].starts_with("could not check ipv");
            it.history.verb == "CHECK" && it.line.starts_with("answer ") && not_found
        },
    },
    Difference {
        id: "second ADD",
        from: ALL,
        reason: "a second ADD replaces the first one's ports; the reference adds to them, and an address that was is found first",
        explains: |it| {
            let rules = it.line.contains(" CNI-DN-") || it.line.contains("\"cni_hostport\"");
            let again = it.history.pods.contains(&Stage::Again);
            again && rules && (!it.ours || it.is_elsewhere())
        },
    },
    Difference {
        id: "in one go",
        from: ALL,
        reason: "all rules of a family are made in one go, so that it is another command of which the tool complains",
        explains: |it| {
            let complains = |it: &&str| it.starts_with("unable to setup DNAT: running [");
            it.line.starts_with("answer msg: ") && it.answers.iter().all(complains)
        },
    },
    Difference {
        id: "mappings",
        from: ALL,
        reason: "a mapping that no tool takes is refused by name before anything is made",
        explains: |it| {
            let ours = it.answers[0].trim_start_matches("failed to parse config: ");
            let refused = ours.starts_with("Invalid ");
            it.plugin == "portmap" && it.line.starts_with("answer msg: ") && refused
        },
    },
    Difference {
        id: "DEL of what was refused",
        from: ALL,
        reason: "DEL with a configuration that ADD refuses succeeds, so that the plugins before portmap have theirs",
        explains: |it| {
            let refused =
                it.answers[0].is_empty() && it.answers[1].starts_with("failed to parse config: ");
            it.history.verb == "DEL" && it.line.starts_with("answer ") && refused
        },
    },
    Difference {
        id: "masqAll",
        from: NEWER,
        reason: "v1.9.1's nftables backend passes masqAll over",
        explains: |it| it.conf["masqAll"] == true && it.line.contains("\"masquerading\""),
    },
    Difference {
        id: "conditions",
        from: NEWER,
        reason: "a container's conditions hold for its own ports; v1.9.1's nftables backend has everybody's be those of the last ADD",
        explains: |it| {
            it.conf["backend"] == "nftables"
                && !it.conf["conditionsV4"].is_null()
                && it.line.contains("\"cni_hostport\"")
        },
    },
    Difference {
        id: "owners",
        from: NEWER,
        reason: "a table beside, to which no packet comes, tells GC of which network a pod's nftables rules are",
        explains: |it| it.ours && it.line.contains("\"cni_hostport_owners\""),
    },
    Difference {
        id: "undo",
        from: ALL,
        reason: "a failed ADD leaves nothing but the shared bridge, and nothing at all of what was bound to fail",
        explains: |it| {
            let refused = it.history.pods.contains(&Stage::Refused) || !it.history.attached;
            let forwards = it.line.starts_with("host sysctl ");
            let asked = !it.ours && it.is_of_an_empty_store();
            refused && (it.is_left_or_its_bridge() || forwards || asked)
        },
    },
    Difference {
        id: "IPAM first",
        from: ALL,
        reason: "IPAM is asked before the kernel, so that its cursor moves on also where the cable cannot be plugged in",
        explains: |it| {
            let early = !it.history.attached && it.is_of_an_empty_store();
            it.plugin == "bridge" && it.ours && early
        },
    },
    Difference {
        id: "STATUS",
        from: NEWER,
        reason: "STATUS proves that a lease could be written, and so makes the store as ADD does",
        explains: |it| {
            let early = !it.history.attached && it.is_of_an_empty_store();
            it.plugin == "host-local" && it.ours && early
        },
    },
    Difference {
        id: "DEL without namespace",
        from: ALL,
        reason: "the host's end is found by its name, so that it goes, and the rules, also when nobody knows the namespace",
        explains: |it| it.history.without_netns && it.is_left_or_its_bridge(),
    },
];

impl Deviation<'_> {
    fn is_1_x(&self) -> bool {
        self.conf["cniVersion"]
            .as_str()
            .is_some_and(|it| it.starts_with("1."))
    }

    /// What the reference leaves behind, and what a bridge is like that has a port the more or the less.
    fn is_left_or_its_bridge(&self) -> bool {
        let left = [
            " is there",
            "tables-save nat: ",
            "host nft ",
            "host addr br1: ",
            "host route: dev=br1 ",
        ];
        let bridge = ["host link br1 ", "host port: ifname=br1 "];
        let of_its_bridge = bridge.iter().any(|it| self.line.starts_with(it));
        let is_left = left.iter().any(|it| self.line.contains(it));
        (of_its_bridge && !is_left) || (is_left && !self.ours)
    }

    /// What a store has before the first lease, and after the last.
    fn is_of_an_empty_store(&self) -> bool {
        let path = self.line.strip_prefix("store networks/");
        let path = path.and_then(|it| it.split(' ').next());
        path.is_some_and(|it| {
            ["", "net/", "net/lock"].contains(&it) || it.starts_with("net/last_reserved_ip.")
        })
    }

    /// The other says the same but for this.
    fn otherwise(&self, ours: &str, theirs: &str) -> bool {
        let (here, there) = if self.ours {
            (ours, theirs)
        } else {
            (theirs, ours)
        };
        self.line.contains(here) && self.other.contains(&self.line.replace(here, there))
    }

    /// The other has the same rule at another place of the chain.
    fn is_elsewhere(&self) -> bool {
        let rule = without_place(self.line);
        self.other.iter().any(|it| without_place(it) == rule)
    }

    /// The other says the same if these words are left out of both.
    fn same_without(&self, words: &[&str]) -> bool {
        let plain = |line: &str| {
            words
                .iter()
                .fold(line.to_owned(), |line, word| line.replace(word, ""))
        };
        self.other.iter().any(|it| plain(it) == plain(self.line))
    }
}

/// A line about a rule, its place in the chain left out.
fn without_place(line: &str) -> Vec<&str> {
    let mut words: Vec<&str> = line.split(' ').collect();
    let is_place = |it: &&str| it.trim_end_matches(':').parse::<u32>().is_ok();
    if let Some(place) = words.iter().position(is_place) {
        words.remove(place);
    }
    words
}
