//! Plans as the commands they equal; then the real tools, each test in a network namespace of its own.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use cni_net::firewall::iptables::{Change, Rule};
use cni_net::firewall::nft::Transaction;
use cni_net::firewall::tool::Limits;
use expect_test::{Expect, expect};
use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;

use super::*;

const IPTABLES: Backend = Backend::Iptables { or_nftables: false };

fn owner<'a>(network: &'a str, container_id: &'a str, ifname: &'a str) -> Owner<'a> {
    Owner {
        network,
        container_id,
        ifname,
    }
}

fn masq() -> Owner<'static> {
    owner("masq", "ctr1", "eth0")
}

fn addresses(texts: &[&str]) -> Vec<IpNetwork> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// The changes, the owner's comment cut short, a line each.
fn print(changes: &[Change]) -> String {
    let lines = changes.iter().map(|change| format!("{change}\n"));
    lines.collect::<String>().replace(
        r#" -m comment --comment "name: \"masq\" id: \"ctr1\"""#,
        " …",
    )
}

/// What the changes leave, written as the kernel has it: subnets instead of addresses with a prefix length.
fn after(saved: &Saved, changes: &[Change]) -> Saved {
    let mut saved = saved.clone();
    let as_kept = |rule: &Rule| {
        let mut rule = rule.clone();
        for option in ["-s", "-d"] {
            if let Some(at) = rule.words.iter().position(|word| word == option) {
                let address: IpNetwork = rule.words[at + 1].parse().unwrap();
                rule.words[at + 1] = iptables::subnet(&address).to_string();
            }
        }
        rule
    };
    for change in changes {
        match change {
            Change::NewChain(chain) => saved.chains.push(chain.clone()),
            Change::FlushChain(chain) => saved.rules.retain(|rule| rule.chain != *chain),
            Change::DeleteChain(chain) => saved.chains.retain(|it| it != chain),
            Change::Append(rule) => saved.rules.push(as_kept(rule)),
            Change::Insert(rule) => saved.rules.insert(0, as_kept(rule)),
            Change::Delete(rule) => {
                let at = saved
                    .rules
                    .iter()
                    .position(|it| *it == as_kept(rule))
                    .expect("what is deleted is there");
                saved.rules.remove(at);
            }
        }
    }
    saved
}

fn check_add(texts: &[&str], before: &Saved, expected: Expect) -> Saved {
    let changes = iptables::add(&masq(), &addresses(texts), before);
    expected.assert_eq(&print(&changes));
    let after = after(before, &changes);
    assert_eq!(
        iptables::add(&masq(), &addresses(texts), &after),
        [],
        "again, nothing is missing"
    );
    after
}

fn check_del(stale: Stale<'_>, before: &Saved, expected: Expect) -> Saved {
    let changes = iptables::del(&masq(), &stale, before);
    expected.assert_eq(&print(&changes));
    let after = after(before, &changes);
    assert_eq!(
        iptables::del(&masq(), &stale, &after),
        [],
        "again, nothing is left"
    );
    after
}

#[test]
fn a_chain_of_two_rules_and_a_jump() {
    let ipv4 = check_add(
        &["10.1.2.3/24"],
        &Saved::default(),
        expect![[r#"
        -N CNI-9e3bc059eb9dacbe44332f71
        -A CNI-9e3bc059eb9dacbe44332f71 -d 10.1.2.3/24 -j ACCEPT …
        -A CNI-9e3bc059eb9dacbe44332f71 ! -d 224.0.0.0/4 -j MASQUERADE …
        -A POSTROUTING -s 10.1.2.3 -j CNI-9e3bc059eb9dacbe44332f71 …
    "#]],
    );
    check_add(
        &["2001:db8::2/64"],
        &Saved::default(),
        expect![[r#"
        -N CNI-9e3bc059eb9dacbe44332f71
        -A CNI-9e3bc059eb9dacbe44332f71 -d 2001:db8::2/64 -j ACCEPT …
        -A CNI-9e3bc059eb9dacbe44332f71 ! -d ff00::/8 -j MASQUERADE …
        -A POSTROUTING -s 2001:db8::2 -j CNI-9e3bc059eb9dacbe44332f71 …
    "#]],
    );
    let stale = addresses(&["10.1.2.3/24"]);
    for stale in [Stale::Only(&stale), Stale::AllBut(&[])] {
        let removal = expect![[r#"
            -D POSTROUTING -s 10.1.2.3/32 -j CNI-9e3bc059eb9dacbe44332f71 …
            -F CNI-9e3bc059eb9dacbe44332f71
            -X CNI-9e3bc059eb9dacbe44332f71
        "#]];
        assert_eq!(check_del(stale, &ipv4, removal), Saved::default());
    }
}

#[test]
fn all_subnets_are_accepted_before_the_rest_is_masqueraded() {
    check_add(
        &["10.1.2.3/24", "10.9.0.2/16", "10.1.2.4/24"],
        &Saved::default(),
        expect![[r#"
        -N CNI-9e3bc059eb9dacbe44332f71
        -A CNI-9e3bc059eb9dacbe44332f71 -d 10.1.2.3/24 -j ACCEPT …
        -A CNI-9e3bc059eb9dacbe44332f71 -d 10.9.0.2/16 -j ACCEPT …
        -A CNI-9e3bc059eb9dacbe44332f71 ! -d 224.0.0.0/4 -j MASQUERADE …
        -A POSTROUTING -s 10.1.2.3 -j CNI-9e3bc059eb9dacbe44332f71 …
        -A POSTROUTING -s 10.9.0.2 -j CNI-9e3bc059eb9dacbe44332f71 …
        -A POSTROUTING -s 10.1.2.4 -j CNI-9e3bc059eb9dacbe44332f71 …
    "#]],
    );
}

#[test]
fn an_order_in_which_a_subnet_is_never_accepted_is_mended() {
    // As the reference leaves two addresses.
    let before = Saved::parse(
        r#"
:CNI-9e3bc059eb9dacbe44332f71 - [0:0]
-A POSTROUTING -s 10.1.2.3/32 -m comment --comment "name: \"masq\" id: \"ctr1\"" -j CNI-9e3bc059eb9dacbe44332f71
-A POSTROUTING -s 10.9.0.2/32 -m comment --comment "name: \"masq\" id: \"ctr1\"" -j CNI-9e3bc059eb9dacbe44332f71
-A CNI-9e3bc059eb9dacbe44332f71 -d 10.1.2.0/24 -m comment --comment "name: \"masq\" id: \"ctr1\"" -j ACCEPT
-A CNI-9e3bc059eb9dacbe44332f71 ! -d 224.0.0.0/4 -m comment --comment "name: \"masq\" id: \"ctr1\"" -j MASQUERADE
-A CNI-9e3bc059eb9dacbe44332f71 -d 10.9.0.0/16 -m comment --comment "name: \"masq\" id: \"ctr1\"" -j ACCEPT
"#,
    );
    check_add(
        &["10.1.2.3/24", "10.9.0.2/16"],
        &before,
        expect![[r#"
        -D CNI-9e3bc059eb9dacbe44332f71 -d 10.9.0.0/16 … -j ACCEPT
        -I CNI-9e3bc059eb9dacbe44332f71 -d 10.9.0.2/16 -j ACCEPT …
    "#]],
    );
}

#[test]
fn a_second_interface_shares_the_chain() {
    let first = check_add(
        &["10.1.2.3/24"],
        &Saved::default(),
        expect![[r#"
        -N CNI-9e3bc059eb9dacbe44332f71
        -A CNI-9e3bc059eb9dacbe44332f71 -d 10.1.2.3/24 -j ACCEPT …
        -A CNI-9e3bc059eb9dacbe44332f71 ! -d 224.0.0.0/4 -j MASQUERADE …
        -A POSTROUTING -s 10.1.2.3 -j CNI-9e3bc059eb9dacbe44332f71 …
    "#]],
    );
    let both = check_add(
        &["10.9.0.2/16"],
        &first,
        expect![[r#"
        -I CNI-9e3bc059eb9dacbe44332f71 -d 10.9.0.2/16 -j ACCEPT …
        -A POSTROUTING -s 10.9.0.2 -j CNI-9e3bc059eb9dacbe44332f71 …
    "#]],
    );
    let stale = addresses(&["10.1.2.3/24"]);
    let second = check_del(
        Stale::Only(&stale),
        &both,
        expect![[r#"
        -D POSTROUTING -s 10.1.2.3/32 -j CNI-9e3bc059eb9dacbe44332f71 …
        -D CNI-9e3bc059eb9dacbe44332f71 -d 10.1.2.0/24 -j ACCEPT …
    "#]],
    );
    // Again without addresses, while the second interface lives.
    check_del(
        Stale::AllBut(&addresses(&["10.9.0.2/16"])),
        &both,
        expect![[r#"
        -D POSTROUTING -s 10.1.2.3/32 -j CNI-9e3bc059eb9dacbe44332f71 …
        -D CNI-9e3bc059eb9dacbe44332f71 -d 10.1.2.0/24 -j ACCEPT …
    "#]],
    );
    check_del(
        Stale::AllBut(&addresses(&["10.9.0.2/16"])),
        &second,
        expect![""],
    );
    check_del(
        Stale::AllBut(&[]),
        &both,
        expect![[r#"
        -D POSTROUTING -s 10.1.2.3/32 -j CNI-9e3bc059eb9dacbe44332f71 …
        -D POSTROUTING -s 10.9.0.2/32 -j CNI-9e3bc059eb9dacbe44332f71 …
        -F CNI-9e3bc059eb9dacbe44332f71
        -X CNI-9e3bc059eb9dacbe44332f71
    "#]],
    );
    // Both in one subnet: it is still needed.
    let both = check_add(
        &["10.1.2.4/24"],
        &first,
        expect![[r#"
        -A POSTROUTING -s 10.1.2.4 -j CNI-9e3bc059eb9dacbe44332f71 …
    "#]],
    );
    check_del(
        Stale::Only(&stale),
        &both,
        expect![[r#"
        -D POSTROUTING -s 10.1.2.3/32 -j CNI-9e3bc059eb9dacbe44332f71 …
    "#]],
    );
}

#[test]
fn a_jump_in_the_form_of_old_releases_is_found() {
    let before = Saved::parse(
        r#"
:CNI-9e3bc059eb9dacbe44332f71 - [0:0]
-A POSTROUTING -s 10.1.2.0/24 -m comment --comment "name: \"masq\" id: \"ctr1\"" -j CNI-9e3bc059eb9dacbe44332f71
"#,
    );
    check_del(
        Stale::Only(&addresses(&["10.1.2.3/24"])),
        &before,
        expect![[r#"
        -D POSTROUTING -s 10.1.2.0/24 … -j CNI-9e3bc059eb9dacbe44332f71
        -F CNI-9e3bc059eb9dacbe44332f71
        -X CNI-9e3bc059eb9dacbe44332f71
    "#]],
    );
    check_del(
        Stale::Only(&addresses(&["10.1.3.3/24"])),
        &before,
        expect![""],
    );
}

#[test]
fn garbage_is_what_a_comment_and_the_chains_name_agree_on() {
    let chain = |network: &str, id: &str| iptables::chain(&owner(network, id, ""));
    let mut saved = Saved::default();
    for (network, id) in [("masq", "dead"), ("masq", "alive"), ("other", "dead")] {
        let owner = owner(network, id, "eth0");
        saved = after(
            &saved,
            &iptables::add(&owner, &addresses(&["10.1.2.3/24"]), &saved),
        );
    }
    // Somebody else's chain with our comment, and one of ours that has lost its rules.
    let comment = [
        "-m",
        "comment",
        "--comment",
        "name: \"masq\" id: \"dead\"",
        "-j",
        "ACCEPT",
    ];
    saved
        .chains
        .extend(["CNI-theirs".to_owned(), chain("masq", "empty")]);
    saved.rules.push(Rule::new("CNI-theirs", comment));
    let changes = iptables::collect_garbage("masq", &[("alive", "eth0"), ("x", "eth0")], &saved);
    let dead = chain("masq", "dead");
    assert_eq!(changes.len(), 3);
    assert!(matches!(&changes[0], Change::Delete(rule) if rule.value("-j") == Some(&dead)));
    assert_eq!(
        changes[1..],
        [Change::FlushChain(dead.clone()), Change::DeleteChain(dead)]
    );
    let all = iptables::collect_garbage("masq", &[], &saved);
    assert_eq!(all.len(), 6);
    assert_eq!(iptables::collect_garbage("none", &[], &saved), []);
}

fn text(transaction: &Transaction) -> String {
    transaction.to_string()
}

#[test]
fn one_transaction_for_nft() {
    let owner = owner("masq", "ctr1", "eth0");
    let wanted = addresses(&["10.1.2.3/24", "2001:db8::2/64"]);
    let first = nftables::add(&owner, &wanted, &nftables::Seen::default(), true);
    expect![[r#"
        add table inet cni_plugins_masquerade { comment "Masquerading for plugins from github.com/containernetworking/plugins" ; }
        add chain inet cni_plugins_masquerade masq_checks { comment "Masquerade traffic from certain IPs to any (non-multicast) IP outside their subnet" ; }
        add chain inet cni_plugins_masquerade postrouting { type nat hook postrouting priority 100 ; }
        flush chain inet cni_plugins_masquerade postrouting
        add rule inet cni_plugins_masquerade postrouting ip daddr 224.0.0.0/4 return
        add rule inet cni_plugins_masquerade postrouting ip6 daddr ff00::/8 return
        add rule inet cni_plugins_masquerade postrouting goto masq_checks
        add rule inet cni_plugins_masquerade masq_checks ip saddr 10.1.2.3 ip daddr != 10.1.2.0/24 masquerade comment "75e0883ab0b31b1f-7883a6f9ce71eedb, net: masq, if: eth0, id: ctr1"
        add rule inet cni_plugins_masquerade masq_checks ip6 saddr 2001:db8::2 ip6 daddr != 2001:db8::/64 masquerade comment "75e0883ab0b31b1f-7883a6f9ce71eedb, net: masq, if: eth0, id: ctr1"
    "#]].assert_eq(&text(&first));
    let plain = nftables::add(&owner, &wanted, &nftables::Seen::default(), false);
    assert!(!text(&plain).contains("{ comment"));
}

#[test]
fn comments_are_cut_at_128_bytes() {
    let comment = |owner: &Owner<'_>| {
        let transaction = nftables::add(
            owner,
            &addresses(&["10.1.2.3/24"]),
            &nftables::Seen::default(),
            false,
        );
        text(&transaction)
            .rsplit(" comment ")
            .next()
            .unwrap()
            .trim()
            .trim_matches('"')
            .to_owned()
    };
    assert_eq!(
        comment(&owner("masq", "ctr1", "e\"th\"0")),
        "75e0883ab0b31b1f-fd128c6efab6ad99, net: masq, if: eth0, id: ctr1",
        "the hash is of the name as it is"
    );
    let long = comment(&owner("masq", &"c".repeat(100), "eth0"));
    assert_eq!(long.len(), 128);
    assert!(
        long.ends_with(&format!(", id: {}", "c".repeat(68))),
        "{long}"
    );
    // Not within a letter.
    let network = "n".repeat(80);
    assert_eq!(comment(&owner(&network, "c", "xäääää")).len(), 127);
}

#[test]
fn backends_by_name() {
    assert_eq!(choose(Some("iptables")).unwrap(), IPTABLES);
    assert_eq!(choose(Some("nftables")).unwrap(), Backend::Nftables);
    for unknown in ["", "nft", "IPTABLES"] {
        let error = choose(Some(unknown)).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("unknown ipmasq backend \"{unknown}\"")
        );
        assert_eq!(error.code(), Code::INVALID_CONFIG);
    }
}

// M10
#[test]
fn m10_without_a_name_it_is_what_is_there() {
    let chosen = |names: &[&str]| {
        let node = Tooled::with(|folder| {
            names
                .iter()
                .for_each(|name| executable(&folder.join(name), ""))
        });
        choose_among(&node.tools, None).unwrap()
    };
    assert_eq!(
        chosen(&["iptables-restore", "nft"]),
        Backend::Iptables { or_nftables: true }
    );
    assert_eq!(
        chosen(&["iptables-restore"]),
        Backend::Iptables { or_nftables: true }
    );
    assert_eq!(chosen(&["nft"]), Backend::Nftables);
    assert_eq!(chosen(&[]), Backend::Iptables { or_nftables: true });
}

/// Tools in a folder of their own.
struct Tooled {
    folder: TempDir,
    tools: Tools,
}

impl Tooled {
    fn with(fill: impl FnOnce(&Path)) -> Tooled {
        let folder = tempfile::tempdir().unwrap();
        fill(folder.path());
        let limits = Limits {
            lock_seconds: 60,
            total: Duration::from_secs(120),
        };
        let tools = Tools::new(
            [folder.path().to_owned()],
            folder.path().join("lock"),
            limits,
        );
        Tooled { folder, tools }
    }

    /// The real `nft`, and the real `iptables` of one kind; the older with a lock of its own.
    fn real(kind: &str) -> Tooled {
        Tooled::with(|folder| {
            symlink("/usr/sbin/nft", folder.join("nft")).unwrap();
            for family in Family::ALL {
                for part in ["", "-restore", "-save"] {
                    let tool = folder.join(format!("{}{part}", family.tool()));
                    let real = format!("/usr/sbin/{}-{kind}{part}", family.tool());
                    assert!(Path::new(&real).exists(), "{real} is missing");
                    if kind == "nft" {
                        symlink(real, tool).unwrap();
                    } else {
                        let lock = folder.join("lock");
                        executable(
                            &tool,
                            &format!("XTABLES_LOCKFILE={} exec {real} \"$@\"", lock.display()),
                        );
                    }
                }
            }
        })
    }

    /// Puts a script in the place of a tool.
    fn replace(&self, tool: &str, text: &str) {
        let _ = fs::remove_file(self.folder.path().join(tool));
        executable(&self.folder.path().join(tool), text);
    }

    fn add(
        &self,
        owner: &Owner<'_>,
        texts: &[&str],
        backend: Backend,
    ) -> Result<(), MasqueradeError> {
        let adding = start_add_with(self.tools.clone(), owner, &addresses(texts), backend)?;
        adding.finish().map(Installed::keep)
    }

    fn del(&self, owner: &Owner<'_>, texts: &[&str]) -> Result<(), MasqueradeError> {
        let addresses = addresses(texts);
        let stale = if texts.is_empty() {
            Stale::AllBut(&[])
        } else {
            Stale::Only(&addresses)
        };
        start_del_with(self.tools.clone(), owner, stale).finish()
    }

    /// What `iptables-save` and `nft` show of the rules.
    fn saved(&self) -> String {
        let save = |tool: &str| {
            let output = Command::new(self.folder.path().join(tool))
                .args(["-t", "nat"])
                .output()
                .unwrap();
            assert!(output.status.success());
            String::from_utf8(output.stdout).unwrap()
        };
        let lines = Family::ALL
            .map(|family| save(&format!("{}-save", family.tool())))
            .concat();
        let ours = |line: &&str| line.starts_with("-A") || line.starts_with(":CNI");
        let mut lines: Vec<&str> = lines.lines().filter(ours).collect();
        lines.sort_by_key(|line| !line.starts_with(':'));
        lines.iter().map(|line| format!("{line}\n")).collect()
    }
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

/// Runs `test` with each kind of `iptables`, each time in a new namespace.
fn with_each_kind(test: impl Fn(&Tooled) + Clone + Send + 'static) {
    for kind in ["nft", "legacy"] {
        let test = test.clone();
        in_namespace(move || test(&Tooled::real(kind)));
    }
}

fn nft_table() -> String {
    let output = Command::new("nft")
        .args(["list", "table", "inet", nftables::TABLE])
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn iptables_rules_come_and_go() {
    with_each_kind(|node| {
        let pod = ["10.1.2.3/24", "2001:db8::2/64"];
        node.add(&masq(), &pod, IPTABLES).unwrap();
        let rules = expect![[r#"
            :CNI-9e3bc059eb9dacbe44332f71 - [0:0]
            :CNI-9e3bc059eb9dacbe44332f71 - [0:0]
            -A POSTROUTING -s 10.1.2.3/32 -m comment --comment "name: \"masq\" id: \"ctr1\"" -j CNI-9e3bc059eb9dacbe44332f71
            -A CNI-9e3bc059eb9dacbe44332f71 -d 10.1.2.0/24 -m comment --comment "name: \"masq\" id: \"ctr1\"" -j ACCEPT
            -A CNI-9e3bc059eb9dacbe44332f71 ! -d 224.0.0.0/4 -m comment --comment "name: \"masq\" id: \"ctr1\"" -j MASQUERADE
            -A POSTROUTING -s 2001:db8::2/128 -m comment --comment "name: \"masq\" id: \"ctr1\"" -j CNI-9e3bc059eb9dacbe44332f71
            -A CNI-9e3bc059eb9dacbe44332f71 -d 2001:db8::/64 -m comment --comment "name: \"masq\" id: \"ctr1\"" -j ACCEPT
            -A CNI-9e3bc059eb9dacbe44332f71 ! -d ff00::/8 -m comment --comment "name: \"masq\" id: \"ctr1\"" -j MASQUERADE
        "#]];
        rules.assert_eq(&node.saved());
        node.add(&masq(), &pod, IPTABLES).unwrap();
        rules.assert_eq(&node.saved());
        node.del(&masq(), &pod).unwrap();
        assert_eq!(node.saved(), "");
        node.del(&masq(), &pod).unwrap();
        // The interface is gone before DEL knows its addresses, or the whole namespace.
        node.add(&masq(), &pod, IPTABLES).unwrap();
        node.del(&masq(), &[]).unwrap();
        assert_eq!(node.saved(), "");
        node.del(&masq(), &[]).unwrap();
    });
}

#[test]
fn families_of_different_kinds_do_not_lock_each_other_out() {
    for older in Family::ALL {
        in_namespace(move || {
            let mut node = Tooled::real("nft");
            let lock = node.folder.path().join("lock");
            for part in ["", "-restore", "-save"] {
                let tool = format!("{}{part}", older.tool());
                let real = format!("/usr/sbin/{}-legacy{part}", older.tool());
                let text = format!("XTABLES_LOCKFILE={} exec {real} \"$@\"", lock.display());
                node.replace(&tool, &text);
            }
            node.tools = node.tools.limited(Limits {
                lock_seconds: 2,
                total: Duration::from_secs(120),
            });
            let pod = ["10.1.2.3/24", "2001:db8::2/64"];
            // The second time both are read first.
            for _ in 0..2 {
                node.add(&masq(), &pod, IPTABLES).unwrap();
                assert_eq!(node.saved().lines().count(), 8, "{}", node.saved());
            }
            node.del(&masq(), &pod).unwrap();
            assert_eq!(node.saved(), "");
            node.add(&masq(), &pod, IPTABLES).unwrap();
            collect_garbage_with(&node.tools, "masq", &[]).unwrap();
            assert_eq!(node.saved(), "");
        });
    }
}

#[test]
fn two_interfaces_of_a_container_do_not_disturb_each_other() {
    with_each_kind(|node| {
        let second = owner("masq", "ctr1", "net1");
        node.add(&masq(), &["10.1.2.3/24"], IPTABLES).unwrap();
        node.add(&second, &["10.9.0.2/16"], IPTABLES).unwrap();
        node.del(&masq(), &["10.1.2.3/24"]).unwrap();
        let rules = expect![[r#"
            :CNI-9e3bc059eb9dacbe44332f71 - [0:0]
            -A POSTROUTING -s 10.9.0.2/32 -m comment --comment "name: \"masq\" id: \"ctr1\"" -j CNI-9e3bc059eb9dacbe44332f71
            -A CNI-9e3bc059eb9dacbe44332f71 -d 10.9.0.0/16 -m comment --comment "name: \"masq\" id: \"ctr1\"" -j ACCEPT
            -A CNI-9e3bc059eb9dacbe44332f71 ! -d 224.0.0.0/4 -m comment --comment "name: \"masq\" id: \"ctr1\"" -j MASQUERADE
        "#]];
        rules.assert_eq(&node.saved());
        let others = addresses(&["10.9.0.2/16"]);
        start_del_with(node.tools.clone(), &masq(), Stale::AllBut(&others))
            .finish()
            .unwrap();
        rules.assert_eq(&node.saved());
        node.del(&second, &["10.9.0.2/16"]).unwrap();
        assert_eq!(node.saved(), "");
    });
}

// K17
#[test]
fn k17_many_containers_at_once() {
    with_each_kind(|node| {
        let ids: Vec<String> = (0..12).map(|number| format!("ctr{number}")).collect();
        let texts: Vec<String> = (0..12)
            .map(|number| format!("10.1.2.{}/24", number + 2))
            .collect();
        let at_once = |act: &(dyn Fn(&Owner<'_>, &str) + Sync)| {
            thread::scope(|scope| {
                for (id, text) in ids.iter().zip(&texts) {
                    // The same interface twice and another one, as if the runtime had lost patience.
                    for ifname in ["eth0", "eth0", "net1"] {
                        scope.spawn(move || act(&owner("masq", id, ifname), text));
                    }
                }
            });
        };
        at_once(&|owner, text| node.add(owner, &[text], IPTABLES).unwrap());
        let saved = node.saved();
        assert_eq!(
            saved
                .lines()
                .filter(|line| line.contains("-A POSTROUTING"))
                .count(),
            12,
            "{saved}"
        );
        assert_eq!(saved.lines().count(), 4 * 12, "{saved}");
        at_once(&|owner, text| node.del(owner, &[text]).unwrap());
        assert_eq!(node.saved(), "");
    });
}

#[test]
fn rules_that_are_not_kept_are_gone() {
    with_each_kind(|node| {
        for backend in [IPTABLES, Backend::Nftables] {
            let pod = addresses(&["10.1.2.3/24", "2001:db8::2/64"]);
            drop(start_add_with(node.tools.clone(), &masq(), &pod, backend).unwrap());
            assert_eq!(node.saved(), "");
            let installed = start_add_with(node.tools.clone(), &masq(), &pod, backend)
                .unwrap()
                .finish()
                .unwrap();
            assert!(node.saved().contains("CNI-") || nft_table().contains("10.1.2.3"));
            drop(installed);
            assert_eq!(node.saved(), "");
            assert!(!nft_table().contains("10.1.2.3"));
        }
    });
}

#[test]
fn a_family_that_fails_takes_the_other_with_it() {
    with_each_kind(|node| {
        node.replace(
            "ip6tables-restore",
            "cat >/dev/null; echo broken >&2; exit 3",
        );
        let error = node
            .add(&masq(), &["10.1.2.3/24", "2001:db8::2/64"], IPTABLES)
            .unwrap_err();
        let text = error.to_string();
        assert!(
            text.starts_with("running [") && text.ends_with("]: exit status 3: broken"),
            "{text}"
        );
        assert_eq!(error.code(), Code::INTERNAL);
        assert_eq!(node.saved(), "");
    });
}

#[test]
fn nothing_is_run_where_nothing_is_there() {
    in_namespace(|| {
        let node = Tooled::with(|_| {});
        for tool in [
            "nft",
            "iptables-restore",
            "iptables-save",
            "ip6tables-restore",
            "ip6tables-save",
            "iptables",
        ] {
            node.replace(tool, "touch \"$(dirname \"$0\")/run\"; exit 1");
        }
        node.del(&masq(), &[]).unwrap();
        node.del(&masq(), &["10.1.2.3/24", "2001:db8::2/64"])
            .unwrap();
        collect_garbage_with(&node.tools, "masq", &[]).unwrap();
        assert!(!node.folder.path().join("run").exists());
    });
}

#[test]
fn without_tools_add_is_an_error_and_del_is_not() {
    in_namespace(|| {
        let node = Tooled::real("nft");
        node.add(&masq(), &["10.1.2.3/24"], IPTABLES).unwrap();
        node.add(&masq(), &["10.1.2.3/24"], Backend::Nftables)
            .unwrap();
        let none = Tooled::with(|_| {});
        let error = none.add(&masq(), &["10.1.2.3/24"], IPTABLES).unwrap_err();
        let text = r#"failed to locate iptables: exec: "iptables-save": executable file not found in $PATH"#;
        assert_eq!(error.to_string(), text);
        let error = none
            .add(&masq(), &["10.1.2.3/24"], Backend::Nftables)
            .unwrap_err();
        let text =
            r#"could not find nftables binary: exec: "nft": executable file not found in $PATH"#;
        assert_eq!(error.to_string(), text);
        none.del(&masq(), &["10.1.2.3/24"]).unwrap();
        none.del(&masq(), &[]).unwrap();
        collect_garbage_with(&none.tools, "masq", &[]).unwrap();
        assert_eq!(node.saved(), "");
        assert!(!nft_table().contains("10.1.2.3"));
    });
}

#[test]
fn a_tool_that_hangs_is_given_up() {
    in_namespace(|| {
        let limits = Limits {
            lock_seconds: 1,
            total: Duration::from_millis(300),
        };
        let node = Tooled::with(|_| {});
        node.replace("iptables-restore", "sleep 100");
        node.replace("nft", "sleep 100");
        let node = Tooled {
            tools: node.tools.clone().limited(limits),
            ..node
        };
        for backend in [IPTABLES, Backend::Nftables] {
            let start = Instant::now();
            let error = node.add(&masq(), &["10.1.2.3/24"], backend).unwrap_err();
            assert_eq!(error.code(), Code::TRY_AGAIN_LATER);
            assert!(start.elapsed() < Duration::from_secs(50));
        }
    });
}

#[test]
fn unusable_iptables_gives_way_to_nft_unless_asked_for() {
    in_namespace(|| {
        let node = Tooled::real("nft");
        node.replace("iptables-restore", "cat >/dev/null; echo no >&2; exit 3");
        node.replace("iptables", "exit 3");
        node.add(
            &masq(),
            &["10.1.2.3/24"],
            Backend::Iptables { or_nftables: true },
        )
        .unwrap();
        assert!(nft_table().contains("ip saddr 10.1.2.3 "));
        node.add(&masq(), &["10.1.2.3/24"], IPTABLES).unwrap_err();
        // One that works, but not for us.
        node.replace("iptables", "exit 1");
        node.add(
            &masq(),
            &["10.1.2.3/24"],
            Backend::Iptables { or_nftables: true },
        )
        .unwrap_err();
    });
}

// M05
#[test]
fn m05_nft_ruleset_of_four_containers_on_two_networks() {
    in_namespace(|| {
        let node = Tooled::real("nft");
        let add =
            |owner: &Owner<'_>, texts: &[&str]| node.add(owner, texts, Backend::Nftables).unwrap();
        add(&owner("unit-test", "one", "eth0"), &["192.168.1.1/24"]);
        add(
            &owner("unit-test", "two", "eth0"),
            &["192.168.1.2/24", "2001:db8::2/64"],
        );
        add(&owner("unit-test", "three", "eth0"), &["192.168.99.5/24"]);
        add(&owner("alternate", "three", "net1"), &["10.0.0.5/24"]);
        add(&owner("unit-test", "four", "eth0"), &["2001:db8::4/64"]);
        let all = expect![[r#"
            table inet cni_plugins_masquerade {
            	comment "Masquerading for plugins from github.com/containernetworking/plugins"
            	chain masq_checks {
            		comment "Masquerade traffic from certain IPs to any (non-multicast) IP outside their subnet"
            		ip saddr 192.168.1.1 ip daddr != 192.168.1.0/24 masquerade comment "6fd94d501e58f0aa-287fc69eff0574a2, net: unit-test, if: eth0, id: one"
            		ip saddr 192.168.1.2 ip daddr != 192.168.1.0/24 masquerade comment "6fd94d501e58f0aa-d750b2c8f0f25d5f, net: unit-test, if: eth0, id: two"
            		ip6 saddr 2001:db8::2 ip6 daddr != 2001:db8::/64 masquerade comment "6fd94d501e58f0aa-d750b2c8f0f25d5f, net: unit-test, if: eth0, id: two"
            		ip saddr 192.168.99.5 ip daddr != 192.168.99.0/24 masquerade comment "6fd94d501e58f0aa-a4d4adb82b669cfe, net: unit-test, if: eth0, id: three"
            		ip saddr 10.0.0.5 ip daddr != 10.0.0.0/24 masquerade comment "82783ef24bdc7036-acb19d111858e348, net: alternate, if: net1, id: three"
            		ip6 saddr 2001:db8::4 ip6 daddr != 2001:db8::/64 masquerade comment "6fd94d501e58f0aa-e766de567ef6c543, net: unit-test, if: eth0, id: four"
            	}

            	chain postrouting {
            		type nat hook postrouting priority srcnat; policy accept;
            		ip daddr 224.0.0.0/4 return
            		ip6 daddr ff00::/8 return
            		goto masq_checks
            	}
            }
        "#]];
        all.assert_eq(&nft_table());
        // Again, the rules take the place of those before.
        add(&owner("unit-test", "four", "eth0"), &["2001:db8::4/64"]);
        all.assert_eq(&nft_table());
        node.del(&owner("unit-test", "two", "eth0"), &[]).unwrap();
        node.del(&owner("unit-test", "two", "eth0"), &[]).unwrap();
        node.del(&owner("unit-test", "three", "eth0"), &["192.168.99.5/24"])
            .unwrap();
        expect![[r#"
            table inet cni_plugins_masquerade {
            	comment "Masquerading for plugins from github.com/containernetworking/plugins"
            	chain masq_checks {
            		comment "Masquerade traffic from certain IPs to any (non-multicast) IP outside their subnet"
            		ip saddr 192.168.1.1 ip daddr != 192.168.1.0/24 masquerade comment "6fd94d501e58f0aa-287fc69eff0574a2, net: unit-test, if: eth0, id: one"
            		ip saddr 10.0.0.5 ip daddr != 10.0.0.0/24 masquerade comment "82783ef24bdc7036-acb19d111858e348, net: alternate, if: net1, id: three"
            		ip6 saddr 2001:db8::4 ip6 daddr != 2001:db8::/64 masquerade comment "6fd94d501e58f0aa-e766de567ef6c543, net: unit-test, if: eth0, id: four"
            	}

            	chain postrouting {
            		type nat hook postrouting priority srcnat; policy accept;
            		ip daddr 224.0.0.0/4 return
            		ip6 daddr ff00::/8 return
            		goto masq_checks
            	}
            }
        "#]].assert_eq(&nft_table());
    });
}

// M06
#[test]
fn m06_an_address_used_again_keeps_its_new_rule() {
    in_namespace(|| {
        let node = Tooled::real("nft");
        let (old, new) = (
            owner("unit-test", "one", "eth0"),
            owner("unit-test", "two", "eth0"),
        );
        node.add(&old, &["192.168.1.1/24"], Backend::Nftables)
            .unwrap();
        node.add(&new, &["192.168.1.1/24"], Backend::Nftables)
            .unwrap();
        node.del(&old, &["192.168.1.1/24"]).unwrap();
        let left = nft_table();
        assert_eq!(left.matches("saddr 192.168.1.1").count(), 1);
        assert!(left.contains("id: two"));
    });
}

// M07
#[test]
fn m07_garbage_of_one_network_goes() {
    with_each_kind(|node| {
        for backend in [Backend::Nftables, IPTABLES] {
            for (number, id) in ["one", "two", "three"].into_iter().enumerate() {
                let text = format!("192.168.1.{number}/24");
                node.add(&owner("unit-test", id, "eth0"), &[&text], backend)
                    .unwrap();
                node.add(
                    &owner("alternate", id, "net1"),
                    &[&format!("10.0.0.{number}/24")],
                    backend,
                )
                .unwrap();
            }
        }
        let count = |network: &str| {
            let (nft, saved) = (nft_table(), node.saved());
            let quoted = format!(r#"name: \"{network}\""#);
            (
                nft.matches(&format!("net: {network},")).count(),
                saved.lines().filter(|it| it.contains(&quoted)).count(),
            )
        };
        assert_eq!((count("unit-test"), count("alternate")), ((3, 9), (3, 9)));
        // What is valid may hold what was never here, or what is here under another interface's name.
        let valid = [("one", "eth0"), ("unknown", "eth0"), ("three", "net9")];
        collect_garbage_with(&node.tools, "unit-test", &valid).unwrap();
        assert_eq!((count("unit-test"), count("alternate")), ((1, 6), (3, 9)));
        collect_garbage_with(&node.tools, "unit-test", &[]).unwrap();
        assert_eq!((count("unit-test"), count("alternate")), ((0, 0), (3, 9)));
        collect_garbage_with(&node.tools, "unit-test", &[]).unwrap();
        collect_garbage_with(&node.tools, "alternate", &[]).unwrap();
        assert_eq!(count("alternate"), (0, 0));
    });
}

#[test]
fn nft_without_comments_on_tables() {
    in_namespace(|| {
        let node = Tooled::real("nft");
        // An old release.
        node.replace("nft", "cat >\"$0.in\"; ! grep -q '{ comment' \"$0.in\" && exec /usr/sbin/nft \"$@\" <\"$0.in\"; exit 1");
        node.add(&masq(), &["10.1.2.3/24"], Backend::Nftables)
            .unwrap();
        assert!(nft_table().contains("ip saddr 10.1.2.3 "));
        assert!(!nft_table().contains("github.com"));
    });
}

#[test]
fn a_postrouting_chain_that_was_changed_is_written_anew() {
    in_namespace(|| {
        let node = Tooled::real("nft");
        node.add(&masq(), &["10.1.2.3/24"], Backend::Nftables)
            .unwrap();
        let right = nft_table();
        for change in [
            "flush chain inet cni_plugins_masquerade postrouting",
            "insert rule inet cni_plugins_masquerade postrouting accept",
            "add rule inet cni_plugins_masquerade postrouting accept",
        ] {
            assert!(Command::new("nft").arg(change).status().unwrap().success());
            assert_ne!(nft_table(), right);
            node.add(&masq(), &["10.1.2.3/24"], Backend::Nftables)
                .unwrap();
            assert_eq!(nft_table(), right, "{change}");
        }
    });
}

#[test]
fn a_ruleset_that_never_stands_still_is_a_reason_to_try_again() {
    let kernel = |errno: nix::errno::Errno| MasqueradeError::Kernel(errno.into());
    assert_eq!(
        kernel(nix::errno::Errno::EINTR).code(),
        Code::TRY_AGAIN_LATER
    );
    assert_eq!(kernel(nix::errno::Errno::EPERM).code(), Code::INTERNAL);
}
