//! What `flannel` remembers between ADD and DEL, and its verbs of CNI 1.1.

use std::fs;

use serde_json::json;
use tests::cni::with;

use crate::files_below;
use crate::flannel::{On, V4, bare};

#[test]
fn a_second_interface_of_a_container_has_a_state_of_its_own() {
    let Some(on) = On::node(V4) else { return };
    let mut pod = on.pod();
    on.add("flannel", &pod, &bare()).result();
    pod.interface("net1");
    on.add("flannel", &pod, &bare()).result();
    for ifname in ["eth0", "net1"] {
        on.del("flannel", pod.interface(ifname), &bare()).silent();
    }
    assert!(pod.links().is_empty() && on.leases().is_empty());
    let left = files_below(&on.file("/var/lib/cni/flannel"));
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn del_needs_no_subnet_env() {
    let Some(on) = On::node(V4) else { return };
    let pod = on.pod();
    on.add("flannel", &pod, &bare()).result();
    fs::remove_file(on.file("/run/flannel/subnet.env")).unwrap();
    on.del("flannel", &pod, &bare()).silent();
    assert!(pod.links().is_empty() && on.leases().is_empty());
}

#[test]
fn del_keeps_its_state_until_the_delegate_has_succeeded() {
    let Some(on) = On::recording(V4) else { return };
    let conf = with(&bare(), "delegate", json!({ "type": "recorder" }));
    let pod = on.pod();
    let call = |verb: &str| {
        on.call("flannel", verb)
            .pod(&pod)
            .scripts()
            .conf(&conf)
            .run()
    };
    call("ADD").result();
    let before = on.state(&pod);
    on.script(
        "recorder",
        "echo '{\"code\": 11, \"msg\": \"busy\"}'; exit 1",
    );
    assert_eq!(call("DEL").fails("busy").code, 11);
    assert_eq!(on.state(&pod), before);
    on.script("recorder", "exit 0");
    call("DEL").silent();
    assert!(on.state(&pod).is_none());
}

#[test]
fn del_frees_the_lease_when_the_state_is_torn_or_gone() {
    for torn in [Some(""), Some("{\"ipam\":"), None] {
        let Some(on) = On::node(V4) else { return };
        let pod = on.pod();
        on.add("flannel", &pod, &bare()).result();
        for file in files_below(&on.file("/var/lib/cni/flannel")) {
            match torn {
                Some(text) => fs::write(file, text).unwrap(),
                None => fs::remove_file(file).unwrap(),
            }
        }
        on.del("flannel", &pod, &bare()).silent();
        assert!(on.leases().is_empty(), "with state {torn:?}");
        assert!(pod.links().is_empty(), "with state {torn:?}");
        on.del("flannel", &pod, &bare()).silent();
    }
}

#[test]
fn check_goes_through_to_the_delegate() {
    let Some(on) = On::node(V4) else { return };
    let pod = on.pod();
    let conf = with(&bare(), "cniVersion", "1.0.0".into());
    let result = on.add("flannel", &pod, &conf).result();
    on.check("flannel", &pod, &conf, &result).silent();
    pod.run("ip", &["addr", "flush", "dev", "eth0"]);
    on.check("flannel", &pod, &conf, &result).failure();
}

#[test]
fn status_is_50_until_flanneld_has_written() {
    let Some(on) = On::node(V4) else { return };
    let conf = with(&bare(), "cniVersion", "1.1.0".into());
    on.status("flannel", &conf).silent();
    let nowhere = on
        .call("flannel", "STATUS")
        .env("CNI_PATH", "/nowhere")
        .conf(&conf)
        .run();
    assert_eq!(nowhere.failure().code, 50, "its delegate is missing");
    on.write_env("FLANNEL_MTU=1450\n");
    assert_eq!(on.status("flannel", &conf).failure().code, 50);
    fs::remove_file(on.file("/run/flannel/subnet.env")).unwrap();
    assert_eq!(on.status("flannel", &conf).failure().code, 50);
}

#[test]
fn gc_goes_through_and_forgets_what_is_not_valid() {
    let Some(on) = On::node(V4) else { return };
    let conf = with(&bare(), "cniVersion", "1.1.0".into());
    let (kept, lost) = (on.pod(), on.pod());
    on.add("flannel", &kept, &conf).result();
    on.add("flannel", &lost, &conf).result();
    on.gc("flannel", &conf, &[&kept]).silent();
    assert!(on.state(&kept).is_some() && on.state(&lost).is_none());
    assert_eq!(on.leases(), ["10.1.17.2"]);
}
