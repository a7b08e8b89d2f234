//! The document that nft gets; then the real nft, each test in a network namespace of its own.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use cni_net::firewall::tool::Limits;
use expect_test::expect;
use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;

use super::*;

const MAC: &str = "02:00:00:00:12:34";

fn owner<'a>(container_id: &'a str, ifname: &'a str) -> Owner<'a> {
    Owner {
        network: "net",
        container_id,
        ifname,
    }
}

/// The commands of a document, a line each.
fn commands(transaction: &Transaction) -> String {
    let document: Value = serde_json::from_str(&transaction.to_string()).unwrap();
    let commands = document["nftables"].as_array().unwrap();
    commands
        .iter()
        .map(|command| format!("{command}\n"))
        .collect()
}

// M01
#[test]
fn m01_setup_is_one_document() {
    let id = Id::of("container99", "net1");
    let first = setup(&id, &Seen::default(), "veth1", MAC);
    expect![[r#"
        {"table":{"family":"bridge","name":"nat"}}
        {"chain":{"family":"bridge","table":"nat","name":"PREROUTING","type":"filter","hook":"prerouting","prio":-300,"policy":"accept"}}
        {"chain":{"family":"bridge","table":"nat","name":"cni-br-iface-container99-net1"}}
        {"chain":{"family":"bridge","table":"nat","name":"cni-br-iface-container99-net1-mac"}}
        {"flush":{"chain":{"family":"bridge","table":"nat","name":"cni-br-iface-container99-net1"}}}
        {"flush":{"chain":{"family":"bridge","table":"nat","name":"cni-br-iface-container99-net1-mac"}}}
        {"rule":{"family":"bridge","table":"nat","chain":"PREROUTING","expr":[{"match":{"op":"==","left":{"meta":{"key":"iifname"}},"right":"veth1"}},{"jump":{"target":"cni-br-iface-container99-net1"}}],"comment":"macspoofchk-container99-net1"}}
        {"rule":{"family":"bridge","table":"nat","chain":"cni-br-iface-container99-net1","expr":[{"jump":{"target":"cni-br-iface-container99-net1-mac"}}],"comment":"macspoofchk-container99-net1"}}
        {"rule":{"family":"bridge","table":"nat","chain":"cni-br-iface-container99-net1-mac","expr":[{"match":{"op":"==","left":{"payload":{"protocol":"ether","field":"saddr"}},"right":"02:00:00:00:12:34"}},{"return":null}],"comment":"macspoofchk-container99-net1"}}
        {"rule":{"family":"bridge","table":"nat","chain":"cni-br-iface-container99-net1-mac","expr":[{"drop":null}],"comment":"macspoofchk-container99-net1"}}
    "#]].assert_eq(&commands(&first));
    // What is there of an earlier attempt is replaced.
    let seen = Seen {
        base: true,
        handles: vec![4, 7],
        chains: Vec::new(),
    };
    let again = commands(&setup(&id, &seen, "veth1", MAC));
    let first = commands(&first);
    let (first, again): (Vec<&str>, Vec<&str>) = (first.lines().collect(), again.lines().collect());
    let added: Vec<&str> = again
        .iter()
        .copied()
        .filter(|line| !first.contains(line))
        .collect();
    assert_eq!([&first[2..6], &added, &first[6..]].concat(), again);
    expect![[r#"
        {"delete":{"rule":{"family":"bridge","table":"nat","chain":"PREROUTING","handle":4}}}
        {"delete":{"rule":{"family":"bridge","table":"nat","chain":"PREROUTING","handle":7}}}"#]]
    .assert_eq(&added.join("\n"));
}

// M02
#[test]
fn m02_teardown_is_the_rule_and_then_both_chains() {
    let id = Id::of("container99", "net1");
    let seen = Seen {
        base: true,
        handles: vec![4],
        chains: vec![id.interface_chain(), id.mac_chain()],
    };
    let (family, table) = (Family::Bridge, "nat");
    assert_eq!(
        seen.rules(),
        [Removal::Rule {
            family,
            table,
            chain: "PREROUTING".to_owned(),
            handle: 4
        }]
    );
    let chain = |name: &str| Removal::Chain {
        family,
        table,
        chain: name.to_owned(),
    };
    assert_eq!(
        seen.chains(),
        [
            chain("cni-br-iface-container99-net1"),
            chain("cni-br-iface-container99-net1-mac")
        ]
    );
}

// M03
#[test]
fn m03_teardown_tells_what_failed_and_what_did_not() {
    let error = |errno: i32| Some(io::Error::from_raw_os_error(errno));
    let text = |rule, chains| SpoofError::Teardown { rule, chains }.to_string();
    assert_eq!(
        text(error(1), None),
        "failed to teardown spoof-check: failed to delete iface match rule: operation not permitted, <nil>"
    );
    assert_eq!(
        text(None, error(16)),
        "failed to teardown spoof-check: <nil>, failed to delete regular chains: device or resource busy"
    );
    assert_eq!(
        text(error(1), error(16)),
        "failed to teardown spoof-check: failed to delete iface match rule: operation not permitted, \
         failed to delete regular chains: device or resource busy"
    );
}

#[test]
fn an_owner_is_found_whatever_hyphens_are_in_its_names() {
    for (container_id, ifname) in [
        ("a", "eth0"),
        ("a-b", "eth0"),
        ("a", "b-eth0"),
        ("a-b-c", "d-e"),
        ("a", "-"),
    ] {
        let id = Id::of(container_id, ifname);
        assert!(id.is_of("net", &host_name("net", container_id, ifname)));
        assert!(!id.is_of("other", &host_name("net", container_id, ifname)));
        assert!(!id.is_of("net", "veth12345678"));
    }
}

/// A folder with `nft`: a shell script, or the real one.
fn tools(script: Option<&str>) -> (TempDir, Tools) {
    let folder = tempfile::tempdir().unwrap();
    let nft = folder.path().join("nft");
    match script {
        Some(text) => executable(&nft, text),
        None => symlink("/usr/sbin/nft", nft).unwrap(),
    }
    let limits = Limits {
        lock_seconds: 60,
        total: Duration::from_secs(120),
    };
    let tools = Tools::new([folder.path().to_owned()], PathBuf::new(), limits);
    (folder, tools)
}

/// Writes a shell script by another process: one that this process has open for writing, be it in a child about to be
/// started by another test, cannot be run.
fn executable(path: &Path, text: &str) {
    let mut writer = Command::new("/bin/sh")
        .args(["-c", "cat >\"$0\" && chmod 755 \"$0\""])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    writer
        .stdin
        .take()
        .unwrap()
        .write_all(format!("#!/bin/sh\n{text}\n").as_bytes())
        .unwrap();
    assert!(writer.wait().unwrap().success());
}

/// Runs `test` in a new network namespace, on a thread that ends with it.
fn in_namespace(test: impl FnOnce() + Send + 'static) {
    let outcome = thread::spawn(|| {
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
            assert!(
                std::env::var_os("CI").is_none(),
                "cannot make a network namespace: {error}"
            );
            eprintln!("skipped: cannot make a network namespace (not root?): {error}");
            return;
        }
        test();
    });
    if let Err(panic) = outcome.join() {
        std::panic::resume_unwind(panic);
    }
}

fn add(tools: &Tools, owner: &Owner<'_>, host_veth: &str) -> Result<Installed, SpoofError> {
    start_add_with(tools.clone(), owner, host_veth, MAC)?.finish()
}

fn del(owner: &Owner<'_>) -> Result<(), SpoofError> {
    start_del(owner).finish()
}

fn ruleset() -> String {
    let output = Command::new("nft")
        .args(["list", "ruleset"])
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn nft(statement: &str) {
    assert!(
        Command::new("nft")
            .arg(statement)
            .status()
            .unwrap()
            .success(),
        "{statement}"
    );
}

// M01, M02, M04
#[test]
fn m04_rules_come_and_go_whoever_removes_them() {
    in_namespace(|| {
        let (_folder, tools) = tools(None);
        let owner = owner("dummy-0", "eth0");
        add(&tools, &owner, "veth1").unwrap().keep();
        let rules = expect![[r#"
            table bridge nat {
            	chain PREROUTING {
            		type filter hook prerouting priority dstnat; policy accept;
            		iifname "veth1" jump cni-br-iface-dummy-0-eth0 comment "macspoofchk-dummy-0-eth0"
            	}

            	chain cni-br-iface-dummy-0-eth0 {
            		jump cni-br-iface-dummy-0-eth0-mac comment "macspoofchk-dummy-0-eth0"
            	}

            	chain cni-br-iface-dummy-0-eth0-mac {
            		ether saddr 02:00:00:00:12:34 return comment "macspoofchk-dummy-0-eth0"
            		drop comment "macspoofchk-dummy-0-eth0"
            	}
            }
        "#]];
        rules.assert_eq(&ruleset());
        add(&tools, &owner, "veth1").unwrap().keep();
        rules.assert_eq(&ruleset());
        let rest = expect![[r#"
            table bridge nat {
            	chain PREROUTING {
            		type filter hook prerouting priority dstnat; policy accept;
            	}
            }
        "#]];
        del(&owner).unwrap();
        rest.assert_eq(&ruleset());
        del(&owner).unwrap();
        // By the one who has just made them, done or not.
        drop(add(&tools, &owner, "veth1").unwrap());
        rest.assert_eq(&ruleset());
        drop(start_add_with(tools.clone(), &owner, "veth1", MAC).unwrap());
        rest.assert_eq(&ruleset());
    });
}

#[test]
fn teardown_removes_what_is_left() {
    in_namespace(|| {
        let (_folder, tools) = tools(None);
        let owner = owner("dummy-0", "eth0");
        for damage in [
            "flush chain bridge nat PREROUTING",
            "flush chain bridge nat PREROUTING; delete chain bridge nat cni-br-iface-dummy-0-eth0",
            "flush chain bridge nat PREROUTING; delete chain bridge nat cni-br-iface-dummy-0-eth0; \
             delete chain bridge nat cni-br-iface-dummy-0-eth0-mac",
            "delete table bridge nat",
        ] {
            add(&tools, &owner, "veth1").unwrap().keep();
            nft(damage);
            del(&owner).unwrap();
            assert!(!ruleset().contains("dummy-0"), "{damage}: {}", ruleset());
        }
    });
}

#[test]
fn names_that_nfts_language_could_not_hold() {
    in_namespace(|| {
        let (_folder, tools) = tools(None);
        for ifname in ["a@b;c\"{}", "ä#$(x)", "eth0.100"] {
            let owner = owner("0a_.-x", ifname);
            add(&tools, &owner, "veth1").unwrap().keep();
            assert!(
                ruleset().contains(&format!("cni-br-iface-0a_.-x-{ifname}-mac")),
                "{}",
                ruleset()
            );
            del(&owner).unwrap();
            assert!(!ruleset().contains("0a_.-x"));
        }
    });
}

// M03
#[test]
fn m03_what_can_be_removed_is() {
    in_namespace(|| {
        let (_folder, tools) = tools(None);
        let owner = owner("dummy-0", "eth0");
        add(&tools, &owner, "veth1").unwrap().keep();
        nft("add rule bridge nat PREROUTING iifname other jump cni-br-iface-dummy-0-eth0-mac");
        let error = del(&owner).unwrap_err();
        let text = "failed to teardown spoof-check: <nil>, failed to delete regular chains: device or resource busy";
        assert_eq!(error.to_string(), text);
        assert_eq!(error.code(), Code::INTERNAL);
        assert!(!ruleset().contains("veth1"));
    });
}

// M01
#[test]
fn m01_setup_that_fails_leaves_nothing() {
    in_namespace(|| {
        let script = "cat >/dev/null; echo no >&2; exit 1";
        let (folder, tools) = tools(Some(script));
        let error = add(&tools, &owner("dummy-0", "eth0"), "veth1")
            .err()
            .unwrap();
        let nft = folder.path().join("nft");
        let text = format!(
            "failed to setup spoof-check: running [{} -j -f /proc/self/fd/0]: exit status 1: no",
            nft.display()
        );
        assert_eq!(error.to_string(), text);
        assert_eq!(error.code(), Code::INTERNAL);
        fs::remove_file(nft).unwrap();
        let error = add(&tools, &owner("dummy-0", "eth0"), "veth1")
            .err()
            .unwrap();
        let text =
            r#"failed to setup spoof-check: exec: "nft": executable file not found in $PATH"#;
        assert_eq!(error.to_string(), text);
        assert!(error.hint().is_some());
        // Nothing is there, so nothing is needed to remove it.
        del(&owner("dummy-0", "eth0")).unwrap();
    });
}

#[test]
fn many_at_once() {
    in_namespace(|| {
        let (_folder, tools) = tools(None);
        let ids: Vec<String> = (0..12).map(|number| format!("ctr{number}")).collect();
        let at_once = |act: &(dyn Fn(&str) + Sync)| {
            thread::scope(|scope| ids.iter().for_each(|id| drop(scope.spawn(move || act(id)))));
        };
        at_once(&|id| add(&tools, &owner(id, "eth0"), "veth1").unwrap().keep());
        assert_eq!(ruleset().matches(" comment ").count(), 4 * 12);
        at_once(&|id| {
            thread::scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(|| del(&owner(id, "eth0")).unwrap());
                }
            });
        });
        assert_eq!(ruleset().matches(" comment ").count(), 0);
        assert!(!ruleset().contains("cni-br"));
    });
}

#[test]
fn garbage_is_of_this_network_by_its_host_end_or_has_none_any_more() {
    in_namespace(|| {
        let (_folder, tools) = tools(None);
        let make = |link: &str| {
            let arguments = ["link", "add", link, "type", "veth"];
            assert!(
                Command::new("ip")
                    .args(arguments)
                    .status()
                    .unwrap()
                    .success()
            );
        };
        for network in ["net", "other"] {
            for id in ["dead", "alive"] {
                let container_id = format!("{network}-{id}");
                let host_veth = host_name(network, &container_id, "eth0");
                make(&host_veth);
                add(&tools, &owner(&container_id, "eth0"), &host_veth)
                    .unwrap()
                    .keep();
            }
        }
        make("veth12345678");
        for (id, host_veth) in [("net-reference", "veth12345678"), ("gone", "veth9abcdef0")] {
            add(&tools, &owner(id, "eth0"), host_veth).unwrap().keep();
        }
        let left = || {
            let ids = [
                "net-dead",
                "net-alive",
                "other-dead",
                "other-alive",
                "net-reference",
                "gone",
            ];
            ids.into_iter()
                .filter(|id| ruleset().contains(id))
                .collect::<Vec<_>>()
        };
        let valid = [
            ("net-alive", "eth0"),
            ("net-dead", "net1"),
            ("unknown", "eth0"),
            ("gone", "eth0"),
        ];
        collect_garbage("net", &valid).unwrap();
        assert_eq!(
            left(),
            [
                "net-alive",
                "other-dead",
                "other-alive",
                "net-reference",
                "gone"
            ]
        );
        collect_garbage("net", &[]).unwrap();
        collect_garbage("net", &[]).unwrap();
        assert_eq!(left(), ["other-dead", "other-alive", "net-reference"]);
    });
}

#[test]
fn a_ruleset_that_never_stands_still_is_a_reason_to_try_again() {
    let error = |errno: nix::errno::Errno| std::io::Error::from(errno);
    let teardown = |chains| SpoofError::Teardown {
        rule: Some(error(nix::errno::Errno::EINTR)),
        chains: Some(error(chains)),
    };
    for (chains, code) in [
        (nix::errno::Errno::EINTR, Code::TRY_AGAIN_LATER),
        (nix::errno::Errno::EBUSY, Code::INTERNAL),
    ] {
        assert_eq!(teardown(chains).code(), code);
        assert_eq!(SpoofError::Garbage(error(chains)).code(), code);
    }
}
