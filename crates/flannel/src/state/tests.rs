use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::{self, Command};

use super::draft::PREFIX;
use super::*;

fn at(container_id: &str, ifname: &str) -> Attachment {
    Attachment {
        container_id: ContainerId::new(container_id).unwrap(),
        netns: None,
        ifname: IfName::new(ifname).unwrap(),
        args: String::new(),
    }
}

fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::at(folder.path().join("a/b").to_str().unwrap());
    (folder, store)
}

fn conf(mark: u32) -> Vec<u8> {
    format!(r#"{{"type":"bridge","mark":{mark}}}"#).into_bytes()
}

fn pipe(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// The files of the folder itself.
fn files(store: &Store) -> Vec<String> {
    list(&store.folder)
        .unwrap()
        .into_iter()
        .map(|(name, _)| name)
        .collect()
}

#[test]
fn interfaces_of_one_container_have_a_file_each_and_one_together() {
    let (_folder, store) = store();
    store.save(&at("c", "eth0"), &conf(1)).unwrap();
    store.save(&at("c", "net1"), &conf(2)).unwrap();
    assert_eq!(fs::read(store.folder.join("c")).unwrap(), conf(2));
    assert_eq!(
        fs::read(store.folder.join(".by-interface/eth0/c")).unwrap(),
        conf(1)
    );
    // No matter who goes first, what remains is the other's.
    store.forget(&at("c", "net1"), false).unwrap();
    assert_eq!(fs::read(store.folder.join("c")).unwrap(), conf(1));
    let kept = store.kept(&at("c", "net1")).unwrap();
    assert_eq!((kept.own, kept.shared), (None, None));
    store.forget(&at("c", "eth0"), false).unwrap();
    assert_eq!(files(&store), [".by-interface"]);
}

#[test]
fn an_id_with_the_interface_in_it_is_another_container() {
    let (_folder, store) = store();
    store.save(&at("c", "net1"), &conf(1)).unwrap();
    store.save(&at("c-net1", "eth0"), &conf(2)).unwrap();
    store.forget(&at("c", "net1"), false).unwrap();
    assert_eq!(files(&store), [".by-interface", "c-net1"]);
}

#[test]
fn half_a_file_is_never_seen() {
    let (_folder, store) = store();
    let long = |mark: u32| {
        format!(
            r#"{{"type":"bridge","long":"{}"}}"#,
            mark.to_string().repeat(99_999)
        )
        .into_bytes()
    };
    store.save(&at("c", "eth0"), &long(0)).unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            (0..200).for_each(|mark| drop(store.save(&at("c", "eth0"), &long(mark % 2)).unwrap()))
        });
        while !writer.is_finished() {
            let kept = store.kept(&at("c", "eth0")).unwrap();
            assert!(
                matches!(kept.own, Some(State::Whole(_)))
                    && matches!(kept.shared, Some(State::Whole(_)))
            );
        }
    });
}

#[test]
fn an_existing_file_gets_the_mode_of_a_new_one() {
    let (_folder, store) = store();
    make_folder(&store.folder).unwrap();
    fs::write(store.folder.join("c"), "x").unwrap();
    fs::set_permissions(store.folder.join("c"), fs::Permissions::from_mode(0o644)).unwrap();
    store.save(&at("c", "eth0"), &conf(1)).unwrap();
    assert_eq!(
        fs::metadata(store.folder.join("c")).unwrap().mode() & 0o777,
        0o600
    );
}

#[test]
fn a_name_that_is_taken_by_a_folder_leaves_nothing() {
    for taken in ["c", ".by-interface/eth0/c"] {
        let (_folder, store) = store();
        let path = store.folder.join(taken);
        fs::create_dir_all(&path).unwrap();
        let error = store.save(&at("c", "eth0"), &conf(1)).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("open {}: is a directory", path.display())
        );
        assert!(path.is_dir());
        assert_eq!(
            files(&store).iter().filter(|name| *name == "c").count(),
            usize::from(taken == "c")
        );
        assert_eq!(
            files(&store)
                .iter()
                .filter(|name| name.starts_with(PREFIX))
                .count(),
            0
        );
        assert_eq!(
            store.folder.join(".by-interface/eth0/c").exists(),
            taken != "c"
        );
    }
}

#[test]
fn a_save_that_fails_replaces_nothing() {
    for before in [conf(7), b"torn".to_vec()] {
        let (_folder, store) = store();
        fs::create_dir_all(store.folder.join(".by-interface/eth0/c")).unwrap();
        fs::write(store.folder.join("c"), &before).unwrap();
        store.save(&at("c", "eth0"), &conf(1)).unwrap_err();
        assert_eq!(fs::read(store.folder.join("c")).unwrap(), before);
    }
}

#[test]
fn a_file_that_cannot_come_back_is_not_replaced() {
    let (_folder, store) = store();
    make_folder(&store.folder).unwrap();
    let path = store.folder.join("c");
    let refused = || {
        store
            .save(&at("c", "eth0"), &conf(1))
            .unwrap_err()
            .to_string()
    };
    fs::write(&path, vec![b'x'; (1 << 20) + 1]).unwrap();
    let expected = format!("open {}: file is larger than 1 MiB", path.display());
    assert_eq!(refused(), expected);
    assert_eq!(fs::metadata(&path).unwrap().len(), (1 << 20) + 1);
    fs::remove_file(&path).unwrap();
    pipe(&path);
    assert_eq!(
        refused(),
        format!("open {}: not a regular file", path.display())
    );
    // GC passes over it.
    assert_eq!(store.entries().unwrap().len(), 0);
}

/// Own and shared file, before ADD and after one that failed; `None` where there is none. ADD wrote 1.
#[test]
fn what_stood_before_an_add_that_failed_stands_again() {
    let torn = || Some(b"torn".to_vec());
    let [new, old, other] = [1, 2, 3].map(|mark| Some(conf(mark)));
    for (before, after) in [
        // The attachment stands: all is as it was.
        ([&old, &old], [&old, &old]),
        ([&old, &other], [&old, &other]),
        ([&old, &None], [&old, &None]),
        ([&old, &torn()], [&old, &torn()]),
        // It does not: its state is for DEL, and what is not its own comes back.
        ([&None, &other], [&new, &other]),
        ([&torn(), &other], [&new, &other]),
        ([&None, &None], [&new, &new]),
        ([&torn(), &None], [&new, &new]),
        ([&None, &torn()], [&new, &new]),
    ] {
        let (_folder, store) = store();
        let at = at("c", "eth0");
        let paths = [
            store.own(&at.ifname, &at.container_id),
            store.shared(&at.container_id),
        ];
        make_folder(&store.folder.join(".by-interface/eth0")).unwrap();
        for (path, content) in paths.iter().zip(before) {
            if let Some(content) = content {
                fs::write(path, content).unwrap();
            }
        }
        let replaced = store.save(&at, &conf(1)).unwrap();
        store.put_back(&at, &replaced);
        let found = paths.map(|path| fs::read(path).ok());
        assert_eq!(found.each_ref(), after, "{before:?}");
    }
}

// K07
#[test]
fn k07_files_that_hold_no_configuration_are_torn() {
    let (_folder, store) = store();
    make_folder(&store.folder).unwrap();
    let huge = format!(r#"{{"type":"bridge","x":"{}"}}"#, "x".repeat(1 << 20));
    for content in [
        "",
        "{",
        "null",
        "[]",
        "{}",
        r#"{"type":5}"#,
        r#"{"type":""}"#,
        "\0\0\0\0",
        &huge,
    ] {
        fs::write(store.folder.join("c"), content).unwrap();
        assert_eq!(
            store.kept(&at("c", "eth0")).unwrap().shared,
            Some(State::Torn)
        );
    }
}

#[test]
fn a_sweep_takes_what_a_crash_left_and_nothing_else() {
    let (_folder, store) = store();
    store.save(&at("c", "eth0"), &conf(1)).unwrap();
    fs::write(store.folder.join(".cni-flannel-1-0"), "half").unwrap();
    fs::write(store.folder.join(".other"), "").unwrap();
    fs::write(store.folder.join(".new-1-0"), "").unwrap();
    fs::create_dir(store.folder.join(format!("{PREFIX}folder"))).unwrap();
    symlink("c", store.folder.join(format!("{PREFIX}link"))).unwrap();
    pipe(&store.folder.join(format!("{PREFIX}pipe")));
    let target = store.folder.join("d");
    let draft = Draft::write(&store.folder, &target, &conf(2)).unwrap();
    store.sweep().unwrap();
    assert!(!store.folder.join(".cni-flannel-1-0").exists());
    draft.publish().unwrap();
    let rest = [
        ".by-interface",
        ".cni-flannel-folder",
        ".cni-flannel-link",
        ".cni-flannel-pipe",
        ".new-1-0",
        ".other",
        "c",
        "d",
    ];
    assert_eq!(files(&store), rest);
    assert_eq!(fs::read(target).unwrap(), conf(2));
}

#[test]
fn writers_and_sweepers_do_not_disturb_each_other() {
    let (_folder, store) = store();
    make_folder(&store.folder).unwrap();
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|number| {
                let (store, at) = (&store, at(&format!("c{number}"), "eth0"));
                scope.spawn(move || {
                    (0..100).for_each(|mark| drop(store.save(&at, &conf(mark)).unwrap()))
                })
            })
            .collect();
        while !writers.iter().all(|it| it.is_finished()) {
            store.sweep().unwrap();
        }
    });
    assert_eq!(files(&store), [".by-interface", "c0", "c1", "c2", "c3"]);
}

#[test]
fn a_draft_left_under_our_own_process_id_is_in_nobodys_way() {
    let (_folder, store) = store();
    make_folder(&store.folder).unwrap();
    fs::write(
        store.folder.join(format!("{PREFIX}{}-0", process::id())),
        "half",
    )
    .unwrap();
    store.save(&at("c", "eth0"), &conf(1)).unwrap();
    assert_eq!(fs::read(store.folder.join("c")).unwrap(), conf(1));
}
