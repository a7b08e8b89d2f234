//! The real tools, each test in a network namespace of its own.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::direct;
use super::iptables::{self, Change, Family, Lock, Presence, Rule, Saved};
use super::nfnetlink::{Connection, Message};
use super::nft::{self, Transaction};
use super::ruleset::{self, Removal, Ruleset, Verdict};
use super::tool::{Job, Limits, ToolError, Tools};
use super::usable::{self, Kind, NEWER};
use crate::netns::in_namespace;

/// Runs `test` with each kind of `iptables`, each time in a new namespace. They are in a folder of their own, the older
/// kind with a lock of its own.
fn with_each_kind(test: impl Fn(&Tools) + Clone + Send + 'static) {
    for kind in ["nft", "legacy"] {
        let test = test.clone();
        in_namespace(move || {
            let folder = tempfile::tempdir().unwrap();
            let lock = folder.path().join("lock");
            for family in Family::ALL {
                for part in ["restore", "save"] {
                    let tool = folder.path().join(format!("{}-{part}", family.tool()));
                    let real = format!("/usr/sbin/{}-{kind}-{part}", family.tool());
                    if kind == "nft" {
                        symlink(real, tool).unwrap();
                    } else {
                        let text = format!(
                            "#!/bin/sh\nXTABLES_LOCKFILE={} exec {real} \"$@\"\n",
                            lock.display()
                        );
                        executable(&tool, &text);
                    }
                }
            }
            let limits = Limits {
                lock_seconds: 60,
                total: Duration::from_secs(120),
            };
            test(&Tools::new([folder.path().to_owned()], lock, limits));
        });
    }
}

/// Writes a program by another process: one that this process has open for writing, be it in a child about to be
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
        .write_all(text.as_bytes())
        .unwrap();
    assert!(writer.wait().unwrap().success());
}

/// A folder with `nft`, which is this shell script; it puts its process id into a file beside it first.
fn script(text: &str) -> (TempDir, Tools) {
    let folder = tempfile::tempdir().unwrap();
    let pid = folder.path().join("pid");
    let text = format!("#!/bin/sh\necho $$ >{}\n{text}\n", pid.display());
    executable(&folder.path().join("nft"), &text);
    let limits = Limits {
        lock_seconds: 1,
        total: Duration::from_secs(120),
    };
    let tools = Tools::new(
        [folder.path().to_owned()],
        folder.path().join("lock"),
        limits,
    );
    (folder, tools)
}

fn start_nft(tools: &Tools, stdin: &str) -> Result<Job, ToolError> {
    tools.start("nft", &["-f", "-"], stdin)
}

/// What the script has put there, once it has.
fn pid_in(folder: &TempDir) -> Pid {
    let file = folder.path().join("pid");
    loop {
        if let Ok(pid) = fs::read_to_string(&file).unwrap_or_default().trim().parse() {
            return Pid::from_raw(pid);
        }
        thread::yield_now();
    }
}

fn chain(number: usize) -> String {
    format!("CNI-{number:024}")
}

fn additions(number: usize) -> Vec<Change> {
    let chain = chain(number);
    let comment = format!("name: \"net\" id: \"{number}\"");
    let rule = |chain: &str, words: &[&str]| {
        let words = words
            .iter()
            .copied()
            .chain(["-m", "comment", "--comment", &comment]);
        Change::Append(Rule::new(chain, words))
    };
    vec![
        Change::NewChain(chain.clone()),
        rule(&chain, &["-j", "ACCEPT"]),
        rule(&chain, &["-j", "MASQUERADE"]),
        rule("POSTROUTING", &["-p", "tcp", "-j", &chain]),
    ]
}

fn removals(saved: &Saved, number: usize) -> Vec<Change> {
    let chain = chain(number);
    let mut changes: Vec<Change> = saved
        .jumps_to(&chain)
        .cloned()
        .map(Change::Delete)
        .collect();
    if saved.has_chain(&chain) {
        changes.extend([
            Change::FlushChain(chain.clone()),
            Change::DeleteChain(chain),
        ]);
    }
    changes
}

fn read(tools: &Tools, family: Family) -> Saved {
    Saved::of(iptables::start_reading(tools, family).unwrap()).unwrap()
}

#[test]
fn a_change_is_made_whole_or_not_at_all() {
    with_each_kind(|tools| {
        for family in Family::ALL {
            iptables::start(tools, family, &additions(1), None)
                .unwrap()
                .finish()
                .unwrap()
                .success()
                .unwrap();
            let saved = read(tools, family);
            assert!(saved.has_chain(&chain(1)));
            assert_eq!(saved.rules_of(&chain(1)).count(), 2);
            assert_eq!(saved.jumps_to(&chain(1)).count(), 1);
            let mut changes = vec![Change::Append(Rule::new("POSTROUTING", ["-j", "ACCEPT"]))];
            changes.extend(additions(1));
            let refused = iptables::start(tools, family, &changes, None)
                .unwrap()
                .finish()
                .unwrap()
                .success()
                .unwrap_err();
            assert!(refused.is_refusal(), "{refused}");
            assert_eq!(read(tools, family), saved);
        }
    });
}

// K17
#[test]
fn k17_parallel_changes_neither_fail_nor_repeat() {
    with_each_kind(|tools| {
        let add = |number: usize| {
            iptables::reconcile(tools, Family::Ipv4, None, |saved| {
                if saved.has_chain(&chain(number)) {
                    Vec::new()
                } else {
                    additions(number)
                }
            })
        };
        // Each is wanted by three at once, as a chain that all containers share is.
        at_once((0..12).flat_map(|number| [number; 3]), |number| {
            add(number).unwrap()
        });
        let saved = read(tools, Family::Ipv4);
        assert_eq!(saved.rules_of("POSTROUTING").count(), 12, "{saved:#?}");
        assert_eq!(saved.rules.len(), 36);
        at_once((0..12).flat_map(|number| [number; 3]), |number| {
            iptables::reconcile(tools, Family::Ipv4, None, |saved| removals(saved, number))
                .unwrap();
        });
        let saved = read(tools, Family::Ipv4);
        assert_eq!(saved.rules, []);
        assert!(
            !saved.chains.iter().any(|chain| chain.starts_with("CNI-")),
            "{saved:?}"
        );
    });
}

// K17
#[test]
fn k17_parallel_changes_of_different_chains_need_no_lock() {
    with_each_kind(|tools| {
        at_once(0..12, |number| {
            iptables::start(tools, Family::Ipv4, &additions(number), None)
                .unwrap()
                .finish()
                .unwrap()
                .success()
                .unwrap();
        });
        assert_eq!(read(tools, Family::Ipv4).rules.len(), 36);
        at_once(0..12, |number| {
            let saved = read(tools, Family::Ipv4);
            let changes = removals(&saved, number);
            iptables::start(tools, Family::Ipv4, &changes, None)
                .unwrap()
                .finish()
                .unwrap()
                .success()
                .unwrap();
        });
        assert_eq!(read(tools, Family::Ipv4).rules, []);
    });
}

/// Calls `act` with each number, all at once.
fn at_once(numbers: impl Iterator<Item = usize>, act: impl Fn(usize) + Sync) {
    thread::scope(|scope| {
        let act = &act;
        for number in numbers {
            scope.spawn(move || act(number));
        }
    });
}

#[test]
fn the_lock_is_the_tools_for_as_long_as_it_runs() {
    let folder = tempfile::tempdir().unwrap();
    executable(&folder.path().join(NEWER), "#!/bin/sh\nexec sleep 1\n");
    symlink(NEWER, folder.path().join("iptables-restore")).unwrap();
    let lock_file = folder.path().join("lock");
    let limits = Limits {
        lock_seconds: 0,
        total: Duration::from_secs(120),
    };
    let tools = Tools::new([folder.path().to_owned()], lock_file.clone(), limits);
    let lock = Lock::try_take(&tools).unwrap();
    assert!(Lock::try_take(&tools).is_none());
    let error = Lock::take(&tools).unwrap_err();
    assert!(error.is_temporary());
    assert_eq!(
        error.to_string(),
        format!(
            "{} is held by another process, for 0 seconds or more",
            lock_file.display()
        )
    );
    let job = iptables::start(&tools, Family::Ipv4, &[], Some(&lock)).unwrap();
    drop(lock);
    assert!(Lock::try_take(&tools).is_none());
    // Waiting ends when the tool does.
    let patient = tools.limited(Limits {
        lock_seconds: 20,
        ..limits
    });
    drop(Lock::take(&patient).unwrap());
    job.finish().unwrap().success().unwrap();
    // A program that another test is starting may have it for a moment, so wait.
    drop(Lock::take(&patient).unwrap());
}

/// Runs `test` with the newer kind of `iptables` for one family and the older for the other, which have one lock, each
/// way round in a new namespace. Nobody waits longer for the lock than two seconds.
fn with_mixed_kinds(test: impl Fn(&Tools, Family) + Clone + Send + 'static) {
    for older in Family::ALL {
        let test = test.clone();
        in_namespace(move || {
            let folder = tempfile::tempdir().unwrap();
            let lock = folder.path().join("lock");
            for family in Family::ALL {
                for part in ["restore", "save"] {
                    let tool = folder.path().join(format!("{}-{part}", family.tool()));
                    if family == older {
                        let text = format!(
                            "#!/bin/sh\nXTABLES_LOCKFILE={} exec /usr/sbin/{}-legacy-{part} \"$@\"\n",
                            lock.display(),
                            family.tool(),
                        );
                        executable(&tool, &text);
                    } else {
                        symlink(format!("/usr/sbin/{}-nft-{part}", family.tool()), tool).unwrap();
                    }
                }
            }
            let limits = Limits {
                lock_seconds: 2,
                total: Duration::from_secs(120),
            };
            test(&Tools::new([folder.path().to_owned()], lock, limits), older);
        });
    }
}

#[test]
fn families_of_different_kinds_do_not_lock_each_other_out() {
    with_mixed_kinds(|tools, older| {
        for family in Family::ALL {
            let kind = usable::kind(tools, family).unwrap();
            assert_eq!(kind == Kind::Older, family == older);
            assert_eq!(iptables::locks_by_itself(tools, family), family == older);
            iptables::reconcile(tools, family, None, |saved| {
                if saved.has_chain(&chain(1)) {
                    Vec::new()
                } else {
                    additions(1)
                }
            })
            .unwrap();
        }
        // Both at once; the lock is nobody's but the newer tool's once it is dropped here.
        let lock = Lock::take(tools).unwrap();
        let jobs = Family::ALL
            .map(|family| iptables::start(tools, family, &additions(2), Some(&lock)).unwrap());
        drop(lock);
        for job in jobs {
            job.finish().unwrap().success().unwrap();
        }
        for family in Family::ALL {
            let saved = read(tools, family);
            assert!(
                saved.has_chain(&chain(1)) && saved.has_chain(&chain(2)),
                "{saved:?}"
            );
        }
    });
}

#[test]
fn a_missing_subsystem_is_told_from_a_missing_table() {
    in_namespace(|| {
        const NFNL_SUBSYS_NFTABLES: u16 = 10;
        const NOBODYS: u16 = 200;
        const NFT_MSG_GETTABLE: u16 = 1;
        const NFTA_TABLE_NAME: u16 = 1;
        let connection = Connection::open().unwrap().unwrap();
        let table = |subsystem| {
            Message::new(subsystem, NFT_MSG_GETTABLE, ruleset::Family::Ip as u8)
                .with_text(NFTA_TABLE_NAME, "none")
        };
        for (subsystem, is_there) in [(NFNL_SUBSYS_NFTABLES, true), (NOBODYS, false)] {
            let table = table(subsystem);
            assert!(!connection.exists(&table).unwrap());
            assert_eq!(connection.understands(&table).unwrap(), is_there);
        }
    });
}

#[test]
fn the_kernel_is_asked_whether_it_has_nf_tables_at_all() {
    in_namespace(|| {
        let tools = Tools::system();
        usable::check_nft(&tools).unwrap();
        // Nothing is made for that.
        let ruleset = Ruleset::open().unwrap().unwrap();
        assert!(!ruleset.has_table(ruleset::Family::Ip, "nat").unwrap());
        assert!(ruleset.is_there(ruleset::Family::Ip).unwrap());
    });
}

#[test]
fn a_ruleset_that_never_stands_still_is_a_reason_to_try_again() {
    let error = ToolError::Ruleset(Errno::EINTR.into());
    assert!(error.is_temporary() && !error.is_refusal());
    assert!(!ToolError::Ruleset(Errno::EPERM.into()).is_temporary());
}

#[test]
fn a_change_that_nobody_disturbs_and_that_is_refused_is_an_error_at_once() {
    with_each_kind(|tools| {
        let mut readings = 0;
        let refused = iptables::reconcile(tools, Family::Ipv4, None, |_| {
            readings += 1;
            vec![Change::DeleteChain("CNI-none".to_owned())]
        });
        let text = refused.unwrap_err().to_string();
        assert!(
            text.contains("iptables-restore --noflush --wait=60]: exit status "),
            "{text}"
        );
        assert_eq!(readings, 1);
    });
}

// K16
#[test]
fn k16_a_lock_that_is_held_is_waited_for_and_told_of() {
    in_namespace(|| {
        let folder = tempfile::tempdir().unwrap();
        let lock = folder.path().join("lock");
        let text = format!(
            "XTABLES_LOCKFILE={} exec /usr/sbin/iptables-legacy-restore \"$@\"",
            lock.display()
        );
        executable(
            &folder.path().join("iptables-restore"),
            &format!("#!/bin/sh\n{text}\n"),
        );
        let limits = Limits {
            lock_seconds: 1,
            total: Duration::from_secs(20),
        };
        let tools = Tools::new([folder.path().to_owned()], lock.clone(), limits);
        let held = fs::File::create(&lock).unwrap();
        held.lock().unwrap();
        let start = Instant::now();
        let error = iptables::start(&tools, Family::Ipv4, &additions(1), None)
            .unwrap()
            .finish()
            .unwrap()
            .success()
            .unwrap_err();
        assert!(error.is_temporary(), "{error}");
        assert!(
            start.elapsed() >= Duration::from_millis(900)
                && start.elapsed() < Duration::from_secs(10)
        );
        let job = iptables::start(&tools, Family::Ipv4, &additions(1), None).unwrap();
        held.unlock().unwrap();
        job.finish().unwrap().success().unwrap();
    });
}

#[test]
fn the_kernel_tells_without_a_tool_what_is_there() {
    with_each_kind(|tools| {
        for family in Family::ALL {
            assert_eq!(
                iptables::presence(tools, family, &chain(1)),
                Presence::Absent
            );
            assert!(!iptables::older_may_have_rules(tools, family));
            iptables::start(tools, family, &additions(1), None)
                .unwrap()
                .finish()
                .unwrap()
                .success()
                .unwrap();
            let newer = tools_are_newer(tools);
            let there = if newer {
                Presence::Present
            } else {
                Presence::Unknown
            };
            assert_eq!(iptables::presence(tools, family, &chain(1)), there);
            assert_eq!(iptables::older_may_have_rules(tools, family), !newer);
            if newer {
                assert_eq!(
                    iptables::presence(tools, family, &chain(2)),
                    Presence::Absent
                );
                let ruleset = Ruleset::open().unwrap().unwrap();
                let rules = ruleset.rules(family.into(), "nat", "POSTROUTING").unwrap();
                assert_eq!(rules.len(), 1);
                assert_eq!(rules[0].verdict, Some(Verdict::Jump(chain(1))));
                assert_eq!(rules[0].comment.as_deref(), Some(r#"name: "net" id: "1""#));
                assert_eq!(
                    ruleset.rules_of_table(family.into(), "nat").unwrap().len(),
                    3
                );
            }
        }
    });
}

fn tools_are_newer(tools: &Tools) -> bool {
    tools
        .find("iptables-restore")
        .unwrap()
        .canonicalize()
        .unwrap()
        .ends_with(NEWER)
}

fn transact(statements: &[String]) {
    let tools = Tools::system();
    let running = nft::start(&tools, Transaction::Statements(statements.to_vec())).unwrap();
    let again = Transaction::Statements(statements.to_vec());
    running.finish(&tools, || Ok(Some(again.clone()))).unwrap();
}

#[test]
fn rules_are_read_with_what_tells_their_owner() {
    in_namespace(|| {
        let statements = [
            "add table bridge nat",
            "add chain bridge nat PREROUTING { type filter hook prerouting priority -300; }",
            "add chain bridge nat mine",
            "add chain bridge nat other",
            r#"add rule bridge nat PREROUTING iifname "veth1" jump mine comment "me""#,
            "add rule bridge nat mine ether saddr 02:00:00:00:00:01 return",
            "add rule bridge nat mine goto other",
            "add rule bridge nat other drop",
        ];
        transact(&statements.map(str::to_owned));
        let ruleset = Ruleset::open().unwrap().unwrap();
        let family = ruleset::Family::Bridge;
        assert!(ruleset.has_table(family, "nat").unwrap());
        assert!(!ruleset.has_table(family, "na").unwrap());
        assert!(!ruleset.has_table(ruleset::Family::Inet, "nat").unwrap());
        assert!(ruleset.has_chain(family, "nat", "mine").unwrap());
        assert!(!ruleset.has_chain(family, "nat", "min").unwrap());
        assert!(!ruleset.has_chain(family, "na", "mine").unwrap());

        let rules = ruleset.rules(family, "nat", "PREROUTING").unwrap();
        assert_eq!(rules.len(), 1);
        assert_eq!(rules[0].comment.as_deref(), Some("me"));
        assert_eq!(rules[0].verdict, Some(Verdict::Jump("mine".to_owned())));
        assert!(rules[0].values[0].starts_with(b"veth1\0"), "{rules:?}");
        let rules = ruleset.rules(family, "nat", "mine").unwrap();
        assert_eq!(rules[0].values, [[2, 0, 0, 0, 0, 1]]);
        let verdicts: Vec<_> = rules.iter().map(|rule| rule.verdict.clone()).collect();
        assert_eq!(
            verdicts,
            [
                Some(Verdict::Return),
                Some(Verdict::Goto("other".to_owned()))
            ]
        );
        assert_eq!(rules[0].comment, None);
        assert!(rules[0].handle < rules[1].handle);
        assert_eq!(ruleset.rules(family, "nat", "none").unwrap(), []);
        assert_eq!(
            ruleset.rules(ruleset::Family::Ip, "none", "none").unwrap(),
            []
        );
    });
}

#[test]
fn what_is_removed_goes_whole_or_not_at_all() {
    in_namespace(|| {
        let family = ruleset::Family::Inet;
        let statements = [
            "add table inet t",
            "add chain inet t base",
            "add chain inet t mine",
            "add rule inet t base jump mine",
            "add rule inet t base drop",
            "add rule inet t mine accept",
        ];
        transact(&statements.map(str::to_owned));
        let ruleset = Ruleset::open().unwrap().unwrap();
        let base = || ruleset.rules(family, "t", "base").unwrap();
        let rule = |handle| Removal::Rule {
            family,
            table: "t",
            chain: "base".to_owned(),
            handle,
        };
        let chain = |name: &str| Removal::Chain {
            family,
            table: "t",
            chain: name.to_owned(),
        };
        let [jump, last] = [base()[0].handle, base()[1].handle];

        let errno = |removals: &[Removal]| ruleset.remove(removals).unwrap_err().raw_os_error();
        assert_eq!(
            errno(&[rule(last), chain("none")]),
            Some(Errno::ENOENT as i32)
        );
        assert_eq!(
            errno(&[chain("none"), rule(last)]),
            Some(Errno::ENOENT as i32)
        );
        assert_eq!(
            errno(&[rule(last), rule(last + 100), rule(jump)]),
            Some(Errno::ENOENT as i32)
        );
        assert_eq!(
            errno(&[rule(last), chain("mine")]),
            Some(Errno::EBUSY as i32)
        );
        assert_eq!(base().len(), 2);
        // What is asked next gets its own answer, not one that was left over.
        assert!(ruleset.has_chain(family, "t", "mine").unwrap());

        ruleset.remove(&[]).unwrap();
        ruleset.remove(&[rule(jump), chain("mine")]).unwrap();
        assert_eq!(base().len(), 1);
        assert!(!ruleset.has_chain(family, "t", "mine").unwrap());
    });
}

#[test]
fn many_rules_are_read_whole() {
    in_namespace(|| {
        let mut statements = vec!["add table ip t".to_owned(), "add chain ip t c".to_owned()];
        let rule = |number: u32| {
            format!(
                "add rule ip t c ip saddr 10.0.{}.{} drop comment \"{number}\"",
                number / 256,
                number % 256
            )
        };
        statements.extend((0..3000).map(rule));
        transact(&statements);
        let ruleset = Ruleset::open().unwrap().unwrap();
        let rules = ruleset.rules(ruleset::Family::Ip, "t", "c").unwrap();
        let comments: Vec<String> = rules.into_iter().filter_map(|rule| rule.comment).collect();
        assert_eq!(
            comments,
            (0..3000)
                .map(|number| number.to_string())
                .collect::<Vec<_>>()
        );
        let all: Vec<Removal> = ruleset
            .rules(ruleset::Family::Ip, "t", "c")
            .unwrap()
            .into_iter()
            .map(|rule| Removal::Rule {
                family: ruleset::Family::Ip,
                table: "t",
                chain: rule.chain,
                handle: rule.handle,
            })
            .collect();
        ruleset.remove(&all).unwrap();
        assert_eq!(ruleset.rules(ruleset::Family::Ip, "t", "c").unwrap(), []);
    });
}

// M10
#[test]
fn m10_a_tool_that_is_missing_is_told_of() {
    let folder = tempfile::tempdir().unwrap();
    let tools = Tools::new(
        [folder.path().to_owned(), PathBuf::from("/nonexistent")],
        PathBuf::new(),
        Limits::default(),
    );
    assert!(!nft::is_there(&tools));
    assert!(!iptables::is_there(&tools, Family::Ipv4));
    // A folder of the name is no tool, nor is a file that cannot be run.
    fs::create_dir(folder.path().join("nft")).unwrap();
    fs::write(folder.path().join("iptables-restore"), "").unwrap();
    let error = start_nft(&tools, "").unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"exec: "nft": executable file not found in $PATH"#
    );
    assert!(error.is_not_found());
    assert!(
        iptables::start(&tools, Family::Ipv4, &[], None)
            .unwrap_err()
            .is_not_found()
    );
    symlink("/bin/true", folder.path().join("ip6tables-restore")).unwrap();
    assert!(iptables::is_there(&tools, Family::Ipv6));
}

#[test]
fn a_tool_that_hangs_is_ended_with_all_that_it_started() {
    let hangs = [
        "sleep 100",
        "exec sleep 100",
        "sleep 100 & wait",
        // It closes all that could be listened to.
        "exec >&- 2>&- <&-; sleep 100",
        "while :; do :; done",
    ];
    let check = |text: &str| {
        let (folder, tools) = script(text);
        let limits = Limits {
            lock_seconds: 1,
            total: Duration::from_secs(2),
        };
        let start = Instant::now();
        let job = start_nft(&tools.limited(limits), "").unwrap();
        let group = pid_in(&folder);
        let error = job.finish().unwrap_err();
        let in_time = || start.elapsed() < Duration::from_secs(50);
        assert!(
            matches!(error, ToolError::Overrun { .. }),
            "{text}: {error}"
        );
        assert!(error.is_temporary());
        assert!(start.elapsed() >= limits.total && in_time(), "{text}");
        // Killed, they need a moment to go.
        while !processes_of(group).is_empty() {
            assert!(in_time(), "{text}: {:?} left", processes_of(group));
            thread::yield_now();
        }
    };
    thread::scope(|scope| {
        for text in hangs {
            scope.spawn(move || check(text));
        }
    });
}

/// The processes of a group that are more than a name.
fn processes_of(group: Pid) -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let states = processes.filter_map(|it| fs::read_to_string(it.path().join("stat")).ok());
    let alive = |state: &String| {
        // State, parent and group follow the name, which is in parentheses (proc(5)).
        let fields: Vec<&str> = state
            .rsplit(") ")
            .next()
            .unwrap_or_default()
            .split(' ')
            .collect();
        fields.get(2) == Some(&&*group.to_string()) && fields[0] != "Z"
    };
    states.filter(alive).collect()
}

#[test]
fn much_in_and_out_does_not_block() {
    let much = "x".repeat(1000 * 1000);
    let (_folder, tools) = script("cat; cat /dev/zero | head -c 300000 >&2; exit 3");
    let output = start_nft(&tools, &much).unwrap().finish().unwrap();
    assert_eq!(output.stdout().len(), 1000 * 1000);
    assert_eq!(output.code(), Some(3));
    // One that reads nothing.
    let (_folder, tools) = script("echo no >&2; exit 1");
    let error = start_nft(&tools, &much)
        .unwrap()
        .finish()
        .unwrap()
        .success()
        .unwrap_err();
    let text = error.to_string();
    assert!(text.ends_with("/nft -f -]: exit status 1: no"), "{text}");
}

#[test]
fn a_tool_that_leaves_somebody_behind_is_not_waited_for() {
    let (folder, tools) = script("sleep 60 & exit 0");
    let start = Instant::now();
    start_nft(&tools, "")
        .unwrap()
        .finish()
        .unwrap()
        .success()
        .unwrap();
    assert!(start.elapsed() < Duration::from_secs(50));
    killpg(pid_in(&folder), Signal::SIGKILL).unwrap();
}

#[test]
fn a_tool_that_is_killed_is_an_error() {
    let (_folder, tools) = script("kill -9 $$");
    let error = start_nft(&tools, "")
        .unwrap()
        .finish()
        .unwrap()
        .success()
        .unwrap_err();
    assert!(
        error.to_string().ends_with("/nft -f -]: signal: SIGKILL: "),
        "{error}"
    );
}

#[test]
fn killed_halfway_all_is_there_or_nothing() {
    with_each_kind(|tools| {
        let whole = read(tools, Family::Ipv4).rules.len() + 3;
        let mut seen = [0, 0];
        for delay in 0..40 {
            let job = iptables::start(tools, Family::Ipv4, &additions(delay), None).unwrap();
            thread::sleep(Duration::from_micros(delay as u64 * 100));
            drop(job); // kills it
            let rules = read(tools, Family::Ipv4).rules.len();
            assert!(rules == 0 || rules == whole, "{rules} of {whole} rules");
            seen[usize::from(rules == whole)] += 1;
            iptables::reconcile(tools, Family::Ipv4, None, |saved| removals(saved, delay)).unwrap();
        }
        assert!(seen[0] > 0, "none was killed in time");
    });
}

#[test]
fn a_dropped_job_is_gone() {
    let (folder, tools) = script("sleep 100");
    let job = start_nft(&tools, "").unwrap();
    let pid = pid_in(&folder);
    kill(pid, None).unwrap();
    drop(job);
    assert_eq!(kill(pid, None), Err(Errno::ESRCH));
}

/// A chain with rules of every form that needs no tool, for one family.
fn forms(family: Family) -> Vec<Change> {
    let append = |chain: &str, words: &str| Change::Append(Rule::new(chain, words.split(' ')));
    let (network, one, multicast, odd) = match family {
        Family::Ipv4 => ("10.1.2.0/24", "10.1.2.3", "224.0.0.0/4", "10.1.2.64/27"),
        Family::Ipv6 => (
            "2001:db8::/64",
            "2001:db8::3",
            "ff00::/8",
            "2001:db8:4::/46",
        ),
    };
    vec![
        Change::NewChain("CNI-a".into()),
        append(
            "CNI-a",
            &format!("-d {network} -j ACCEPT -m comment --comment c"),
        ),
        append(
            "CNI-a",
            &format!("! -d {multicast} -j MASQUERADE -m comment --comment name:\"n\""),
        ),
        append("CNI-a", &format!("-s {odd} ! -d {one} -j ACCEPT")),
        append("CNI-a", "-j MASQUERADE"),
        append(
            "POSTROUTING",
            &format!("-s {one} -j CNI-a -m comment --comment c"),
        ),
    ]
}

/// The newer kind's tools, in a namespace that they have been used in.
fn with_tables(test: impl FnOnce(&Tools) + Send + 'static) {
    in_namespace(move || {
        let folders = ["/usr/sbin".into(), "/sbin".into()];
        let tools = Tools::new(folders, "/nonexistent/lock".into(), Limits::default());
        for family in Family::ALL {
            assert_eq!(usable::kind(&tools, family).unwrap(), Kind::Newer);
            let first = [
                Change::NewChain("FIRST".into()),
                Change::Append(Rule::new("POSTROUTING", ["-j", "FIRST"])),
            ];
            by_tool(&tools, family, &first);
        }
        test(&tools);
    });
}

fn by_tool(tools: &Tools, family: Family, changes: &[Change]) {
    iptables::start(tools, family, changes, None)
        .unwrap()
        .finish()
        .unwrap()
        .success()
        .unwrap();
}

fn saved(tools: &Tools, family: Family) -> Saved {
    Saved::of(iptables::start_reading(tools, family).unwrap()).unwrap()
}

#[test]
fn what_is_made_without_the_tool_is_what_the_tool_makes() {
    with_tables(|tools| {
        for family in Family::ALL {
            let before = saved(tools, family);
            assert!(direct::make(tools, family, &forms(family)));
            let direct = saved(tools, family);
            assert_eq!(direct.rules.len(), 6);
            // The tool finds each by its words, and so takes it for its own.
            let mut undo = Vec::new();
            for change in forms(family) {
                if let Change::Append(rule) = change {
                    undo.push(Change::Delete(rule));
                }
            }
            undo.push(Change::DeleteChain("CNI-a".into()));
            by_tool(tools, family, &undo);
            assert_eq!(saved(tools, family), before);
            by_tool(tools, family, &forms(family));
            assert_eq!(saved(tools, family), direct);
        }
    });
}

#[test]
fn what_the_kernel_refuses_or_only_the_tool_knows_changes_nothing() {
    in_namespace(|| {
        let folders = ["/usr/sbin".into(), "/sbin".into()];
        let tools = Tools::new(folders, "/nonexistent/lock".into(), Limits::default());
        // The tool has not made its table yet.
        assert!(!direct::make(&tools, Family::Ipv4, &forms(Family::Ipv4)));
        assert!(
            !Ruleset::open()
                .unwrap()
                .unwrap()
                .has_table(ruleset::Family::Ip, "nat")
                .unwrap()
        );
    });
    with_tables(|tools| {
        let family = Family::Ipv4;
        assert!(direct::make(tools, family, &forms(family)));
        let before = saved(tools, family);
        assert!(
            !direct::make(tools, family, &forms(family)),
            "the chain is there"
        );
        let refused = |words: &[&str]| {
            let rule = Change::Append(Rule::new("CNI-b", words.iter().copied()));
            let changes = [Change::NewChain("CNI-b".into()), rule];
            assert!(!direct::make(tools, family, &changes), "{words:?}");
        };
        let long = "x".repeat(256);
        refused(&["-p", "tcp", "-j", "ACCEPT"]);
        refused(&["-d", "2001:db8::/64", "-j", "ACCEPT"]);
        refused(&["-d", "10.1.2.3", "-j", "CNI-a"]); // nobody knows here that it is a chain
        refused(&["-d", "10.1.2.3", "-j", "LOG"]);
        refused(&["-d", "10.1.2.3"]);
        refused(&["-d"]);
        refused(&["-m", "comment", "--comment", &long, "-j", "ACCEPT"]);
        refused(&["-m", "mark", "--mark", "1", "-j", "ACCEPT"]);
        assert!(!direct::make(
            tools,
            family,
            &[Change::FlushChain("CNI-a".into())]
        ));
        assert_eq!(saved(tools, family), before);
        // The older kind has tables of its own.
        let folder = tempfile::tempdir().unwrap();
        executable(&folder.path().join("iptables-restore"), "#!/bin/sh\n");
        let older = Tools::new(
            [folder.path().to_owned()],
            "/nonexistent/lock".into(),
            Limits::default(),
        );
        assert!(!direct::make(
            &older,
            family,
            &[Change::NewChain("CNI-c".into())]
        ));
        assert_eq!(saved(tools, family), before);
    });
}
