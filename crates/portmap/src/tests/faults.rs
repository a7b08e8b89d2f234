//! Tools that are missing, kept waiting, killed, or that say no.

use std::fs::File;
use std::time::{Duration, Instant};

use serde_json::json;

use super::machine::*;

const BOTH: [&str; 2] = ["10.0.0.2/24", "2001:db8::2/64"];

#[test]
fn if_the_second_family_fails_the_first_is_undone() {
    with_each_kind(|machine| {
        machine.succeed(
            "ADD",
            "other",
            &mapped(conf("iptables", &BOTH), &["tcp 1:1"]),
        );
        let before = machine.nat();
        let mut conf = conf("iptables", &["10.0.0.3/24", "2001:db8::3/64"]);
        conf["conditionsV6"] = json!(["--no-such-option"]);
        let (code, msg, details) = failed(&machine.call("ADD", "c1", &conf));
        assert_eq!(code, 999);
        assert!(
            msg.starts_with("unable to setup DNAT: running [") && msg.contains("ip6tables-restore"),
            "{msg}"
        );
        assert!(details.contains("conditionsV6"), "{details}");
        assert_eq!(machine.nat(), before);
        assert_eq!(machine.container_chains().len(), 2);
    });
}

#[test]
fn if_a_second_add_fails_the_first_ones_rules_come_back() {
    with_each_kind(|machine| {
        let first = conf("iptables", &BOTH);
        machine.succeed("ADD", "c1", &first);
        let before = machine.nat();
        let mut second = conf("iptables", &["10.0.0.3/24", "2001:db8::3/64"]);
        second["conditionsV6"] = json!(["--no-such-option"]);
        failed(&machine.call("ADD", "c1", &second));
        assert_eq!(machine.nat(), before);
        machine.succeed("CHECK", "c1", &first);
    });
}

#[test]
fn nft_changes_both_families_or_none() {
    on_machine("nft", |machine| {
        let first = conf("nftables", &BOTH);
        machine.succeed("ADD", "c1", &first);
        let before = machine.tool("nft", "-a list ruleset");
        let mut second = conf("nftables", &["10.0.0.3/24", "2001:db8::3/64"]);
        second["conditionsV6"] = json!(["no such condition"]);
        let (_, msg, details) = failed(&machine.call("ADD", "c1", &second));
        assert!(
            details.starts_with("this attachment's rules are those from before this ADD"),
            "{details}"
        );
        assert!(
            msg.starts_with("unable to set up nftables rules for port mappings: running ["),
            "{msg}"
        );
        assert_eq!(machine.tool("nft", "-a list ruleset"), before);
    });
}

/// From now on the thread's own mounts have `/proc/sys` for reading only.
fn without_writable_sysctls(machine: &Machine) {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    for arguments in [
        "--make-rprivate /",
        "--bind /proc/sys /proc/sys",
        "-o remount,bind,ro /proc/sys",
    ] {
        machine.run("mount", arguments);
    }
}

#[test]
fn if_route_localnet_cannot_be_set_no_rule_changes() {
    for backend in ["iptables", "nftables"] {
        on_machine("nft", |machine| {
            let mut first = conf(backend, &BOTH);
            first["snat"] = false.into();
            machine.succeed("ADD", "c1", &first);
            without_writable_sysctls(machine);
            let ruleset = || machine.run("nft", "-a list ruleset");
            let before = ruleset();
            let second = conf(backend, &["10.0.0.3/24", "2001:db8::3/64"]);
            let (code, msg, details) = failed(&machine.call("ADD", "c1", &second));
            assert_eq!(code, 5);
            assert!(
                msg.starts_with("unable to enable route_localnet: "),
                "{msg}"
            );
            assert!(details.contains("no rule has been changed"), "{details}");
            assert_eq!(ruleset(), before);
        });
    }
}

#[test]
fn an_nft_that_is_killed_at_its_end_leaves_the_containers_other_network() {
    on_machine("nft", |machine| {
        let first = conf("nftables", &BOTH);
        machine.succeed("ADD", "c1", &first);
        // Other chains than the containers' may come.
        let rules = || -> Vec<String> {
            let text = machine.run("nft", "-a list ruleset");
            let lines = text.lines().filter(|it| it.contains("comment"));
            lines.map(str::to_owned).collect()
        };
        let before = rules();
        let mut impatient = machine.clone();
        impatient.limited(1, Duration::from_secs(4));
        machine.script("nft", "/usr/sbin/nft \"$@\"\nexec sleep 60");
        let second = conf("nftables", &["10.0.0.3/24", "2001:db8::3/64"]);
        let mut second = mapped(second, &["tcp 8080:80", "tcp 8081:81"]);
        second["name"] = "cbr1".into();
        let (code, msg, _) = failed(&impatient.call("ADD", "c1", &second));
        assert_eq!(code, 11, "{msg}");
        assert_eq!(rules(), before);
    });
}

#[test]
fn a_chain_of_somebody_else_that_is_not_there_is_told_of() {
    with_each_kind(|machine| {
        let mut conf = conf("iptables", &["10.0.0.2/24"]);
        conf["externalSetMarkChain"] = "PLZ-SET-MARK".into();
        let (_, msg, details) = failed(&machine.call("ADD", "c1", &conf));
        assert!(
            msg.contains("PLZ-SET-MARK") && details.contains("externalSetMarkChain"),
            "{msg} {details}"
        );
        assert_eq!(machine.container_chains(), [""; 0]);
    });
}

#[test]
fn a_missing_tool_is_told_of_and_another_backend_is_taken_if_none_is_asked_for() {
    on_machine("nft", |machine| {
        let status = |backend: serde_json::Value| {
            let mut conf = json!({ "cniVersion": "1.1.0", "name": "cbr0", "type": "portmap" });
            conf["backend"] = backend;
            machine.call("STATUS", "", &conf)
        };
        succeeded(&status(json!(null)));
        machine.uninstall("iptables-restore");
        let (code, msg, _) =
            failed(&machine.call("ADD", "c1", &conf("iptables", &["10.0.0.2/24"])));
        assert_eq!(code, 999);
        assert_eq!(
            msg,
            "failed to open iptables: exec: \"iptables-restore\": executable file not found in $PATH"
        );
        machine.uninstall("ip6tables-restore");
        let (code, msg, _) = failed(&status(json!("iptables")));
        assert_eq!(code, 50);
        assert!(msg.starts_with("iptables is not usable: exec: "), "{msg}");
        succeeded(&status(json!(null)));
        succeeded(&status(json!("nftables")));

        let mut auto = conf("iptables", &["10.0.0.2/24"]);
        auto["backend"] = json!(null);
        machine.succeed("ADD", "c1", &auto);
        machine.succeed("CHECK", "c1", &auto);
        assert!(
            machine
                .tool("nft", "list ruleset")
                .contains("comment \"c1\"")
        );
        machine.succeed("DEL", "c1", &auto);

        machine.uninstall("nft");
        assert_eq!(failed(&status(json!("nftables"))).0, 50);
        let (code, msg, _) = failed(&status(json!(null)));
        assert_eq!(code, 50);
        assert!(
            msg.starts_with("neither iptables nor nftables is usable"),
            "{msg}"
        );
        let (_, msg, _) = failed(&machine.call("ADD", "c1", &conf("nftables", &["10.0.0.2/24"])));
        assert_eq!(
            msg,
            "could not find nftables binary: exec: \"nft\": executable file not found in $PATH"
        );
        // Nothing is left, and nobody is kept from going on.
        machine.succeed("DEL", "c1", &auto);
    });
}

// K16
#[test]
fn k16_a_lock_that_others_hold_is_waited_for_and_then_told_of() {
    on_machine("nft", |machine| {
        let held = File::create(machine.lock()).unwrap();
        held.lock().unwrap();
        let mut impatient = machine.clone();
        impatient.limited(1, Duration::from_secs(20));
        let start = Instant::now();
        let (code, msg, _) = failed(&impatient.call("ADD", "c1", &conf("iptables", &BOTH)));
        assert_eq!(code, 11);
        assert!(msg.contains("is held by another process"), "{msg}");
        assert!(start.elapsed() < Duration::from_secs(5));
        assert_eq!(machine.nat(), [""; 0]);
        // Nobody needs it for what is there already.
        held.unlock().unwrap();
        machine.succeed("ADD", "c1", &conf("iptables", &BOTH));
        held.lock().unwrap();
        let other = mapped(conf("iptables", &["10.0.0.3/24"]), &["tcp 81:81"]);
        succeeded(&impatient.call("ADD", "c2", &other));
        succeeded(&impatient.call("DEL", "c2", &other));
    });
}

#[test]
fn a_tool_that_hangs_is_killed_and_nothing_is_left() {
    with_each_kind(|machine| {
        let mut machine = machine.clone();
        machine.succeed(
            "ADD",
            "other",
            &mapped(conf("iptables", &BOTH), &["tcp 1:1"]),
        );
        let before = machine.nat();
        machine.limited(1, Duration::from_secs(1));
        let real = std::fs::canonicalize(machine.path().join("ip6tables-restore"));
        let kept = machine.path().join("kept");
        std::fs::rename(machine.path().join("ip6tables-restore"), &kept).unwrap();
        machine.script("ip6tables-restore", "exec sleep 60");
        let start = Instant::now();
        let new = conf("iptables", &["10.0.0.3/24", "2001:db8::3/64"]);
        let (code, msg, _) = failed(&machine.call("ADD", "c1", &new));
        assert_eq!(code, 11, "{msg}");
        assert!(msg.contains("without an end"), "{msg}");
        assert!(
            start.elapsed() < Duration::from_secs(15),
            "{:?}",
            start.elapsed()
        );
        std::fs::rename(kept, machine.path().join("ip6tables-restore")).unwrap();
        assert_eq!(machine.nat(), before, "{real:?}");
    });
}

// K10
#[test]
fn k10_del_fails_only_if_rules_are_left_for_certain() {
    on_machine("nft", |machine| {
        machine.succeed("ADD", "c1", &conf("iptables", &["10.0.0.2/24"]));
        machine.uninstall("iptables-restore");
        machine.script("iptables-restore", "echo no >&2; exit 4");
        let (code, msg, details) = failed(&machine.call("DEL", "c1", &conf("iptables", &[])));
        assert_eq!(code, 999);
        assert!(
            msg.starts_with("could not teardown ipv4 dnat: running ["),
            "{msg}"
        );
        assert!(details.contains("are left"), "{details}");
        // A container without rules is none of its business.
        machine.succeed("DEL", "c2", &conf("iptables", &[]));
        // One that is told to be at work for too long will perhaps be faster later.
        machine.script(
            "iptables-restore",
            "echo 'Another app is currently holding the xtables lock' >&2; exit 4",
        );
        assert_eq!(
            failed(&machine.call("DEL", "c1", &conf("iptables", &[]))).0,
            11
        );
    });
    on_machine("legacy", |machine| {
        machine.succeed("ADD", "c1", &conf("iptables", &["10.0.0.2/24"]));
        machine.script("iptables-save", "echo no >&2; exit 1");
        // Who knows? The plugins before this one have to go on.
        let outcome = machine.call("DEL", "c2", &conf("iptables", &[]));
        assert!(!outcome.failed);
        assert!(String::from_utf8_lossy(&outcome.stderr).contains("no rules seem to be left"));
    });
}

#[test]
fn only_decoding_errors_keep_del_from_its_work() {
    on_machine("nft", |machine| {
        let good = conf("iptables", &["10.0.0.2/24"]);
        machine.succeed("ADD", "c1", &good);
        let mut odd = good.clone();
        odd["markMasqBit"] = 99.into();
        odd["backend"] = "foo".into();
        machine.succeed("DEL", "c1", &odd);
        assert_eq!(machine.container_chains(), [""; 0]);
        odd["markMasqBit"] = "x".into();
        let (code, msg, _) = failed(&machine.call("DEL", "c1", &odd));
        assert_eq!(code, 6);
        assert!(
            msg.starts_with("failed to parse config: failed to parse network configuration: "),
            "{msg}"
        );
    });
}

// K10
#[test]
fn k10_del_needs_nothing_of_the_previous_result() {
    for backend in ["iptables", "nftables"] {
        on_machine("nft", |machine| {
            let good = conf(backend, &BOTH);
            for broken in [
                json!({ "cniVersion": "0.4.0" }),
                json!({ "cniVersion": "1.0.0", "ips": [{ "address": "nowhere" }] }),
                json!("none"),
            ] {
                machine.succeed("ADD", "c1", &good);
                let mut odd = good.clone();
                odd["prevResult"] = broken;
                assert!(machine.call("CHECK", "c1", &odd).failed);
                let outcome = machine.call("DEL", "c1", &odd);
                let stderr = String::from_utf8_lossy(&outcome.stderr);
                assert!(!outcome.failed, "{odd}");
                assert!(stderr.starts_with("failed to parse config: "), "{stderr}");
                assert!(stderr.contains("removed without it"), "{stderr}");
                assert_eq!(machine.container_chains(), [""; 0]);
                let ruleset = machine.run("nft", "list ruleset");
                assert!(!ruleset.contains("\"c1\""), "{ruleset}");
            }
        });
    }
}

#[test]
fn what_is_missing_from_the_configuration_is_told() {
    on_machine("nft", |machine| {
        let mut conf = mapped(conf("iptables", &["10.0.0.2/24"]), &[]);
        conf["prevResult"] = json!(null);
        let (code, msg, _) = failed(&machine.call("ADD", "c1", &conf));
        assert_eq!(
            (code, msg.as_str()),
            (7, "must be called as chained plugin")
        );
        let (code, msg, _) = failed(&machine.call("CHECK", "c1", &conf));
        assert_eq!((code, msg.as_str()), (7, "Required prevResult missing"));
        conf["markMasqBit"] = 99.into();
        assert_eq!(
            failed(&machine.call("CHECK", "c1", &conf)).1,
            "MasqMarkBit must be between 0 and 31"
        );
    });
}

#[test]
fn check_names_what_is_missing() {
    with_each_kind(|machine| {
        let conf = conf("iptables", &BOTH);
        let check = || failed(&machine.call("CHECK", "c1", &conf));
        let (code, msg, _) = check();
        assert_eq!(code, 102);
        assert_eq!(
            msg,
            "could not check ipv4 dnat: chain CNI-DN-68f1f1eeb62cad3d0bdd5 not found in iptables table nat"
        );
        machine.succeed("ADD", "c1", &conf);
        machine.succeed("CHECK", "c1", &conf);
        machine.tool("ip6tables", "-t nat -F CNI-HOSTPORT-DNAT");
        let msg = check().1;
        assert!(
            msg.starts_with("could not check ipv6 dnat: rule [[-m comment --comment dnat name:"),
            "{msg}"
        );
        machine.succeed("ADD", "c1", &conf);
        machine.succeed("CHECK", "c1", &conf);
    });
}

#[test]
fn families_of_different_kinds_do_not_lock_each_other_out() {
    for older in ["iptables", "ip6tables"] {
        on_machine("nft", |machine| {
            let mut machine = machine.clone();
            machine.limited(2, Duration::from_secs(60));
            for part in ["", "-restore", "-save"] {
                let lock = machine.lock();
                let text = format!(
                    "XTABLES_LOCKFILE={} exec /usr/sbin/{older}-legacy{part} \"$@\"",
                    lock.display()
                );
                machine.script(&format!("{older}{part}"), &text);
            }
            // The second time both families are read first.
            for _ in 0..2 {
                machine.succeed("ADD", "c1", &conf("iptables", &BOTH));
                assert_eq!(machine.container_chains().len(), 2);
            }
            machine.succeed("CHECK", "c1", &conf("iptables", &BOTH));
            machine.succeed("DEL", "c1", &conf("iptables", &BOTH));
            assert!(machine.container_chains().is_empty());
        });
    }
}
