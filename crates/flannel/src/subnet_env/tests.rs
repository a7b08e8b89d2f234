use super::*;

fn parse(content: &str) -> SubnetEnv {
    SubnetEnv::parse(content.as_bytes()).unwrap()
}

fn texts(networks: &[IpNetwork]) -> Vec<String> {
    networks.iter().map(IpNetwork::to_string).collect()
}

const V4: &str = "FLANNEL_NETWORK=10.1.0.0/16\nFLANNEL_SUBNET=10.1.17.1/24\n";
const V6: &str = "FLANNEL_IPV6_NETWORK=fc00::/48\nFLANNEL_IPV6_SUBNET=fc00::1/64\n";
const REST: &str = "FLANNEL_MTU=1472\nFLANNEL_IPMASQ=true\n";

// F06
#[test]
fn f06_a_blank_line_first_and_a_gateway_for_a_subnet() {
    let env = parse(&format!("\n{V4}{REST}"));
    assert_eq!(texts(&env.subnets), ["10.1.17.0/24"]);
}

// F09
#[test]
fn f09_ipv4() {
    let env = parse(&format!("{V4}{REST}"));
    assert_eq!(texts(&env.networks), ["10.1.0.0/16"]);
    assert_eq!(texts(&env.subnets), ["10.1.17.0/24"]);
    assert_eq!((env.mtu, env.ip_masq), (1472, true));
}

// F10
#[test]
fn f10_ipv6() {
    let env = parse(&format!("{V6}{REST}"));
    assert_eq!(texts(&env.networks), ["fc00::/48"]);
    assert_eq!(texts(&env.subnets), ["fc00::/64"]);
    assert_eq!((env.mtu, env.ip_masq), (1472, true));
}

// F11
#[test]
fn f11_dual_stack_is_ipv4_first_whatever_the_order_of_lines() {
    for content in [format!("{V4}{V6}{REST}"), format!("{REST}{V6}{V4}")] {
        let env = parse(&content);
        assert_eq!(texts(&env.networks), ["10.1.0.0/16", "fc00::/48"]);
        assert_eq!(texts(&env.subnets), ["10.1.17.0/24", "fc00::/64"]);
    }
}

// F12, K06
#[test]
fn f12_all_that_is_missing_is_named() {
    let missing = |content: &str| match SubnetEnv::parse(content.as_bytes()) {
        Err(ContentError::Missing(keys)) => keys.join(", "),
        other => panic!("{other:?}"),
    };
    let all = "FLANNEL_NETWORK, FLANNEL_IPV6_NETWORK, FLANNEL_SUBNET, FLANNEL_IPV6_SUBNET, FLANNEL_MTU, FLANNEL_IPMASQ";
    for content in [
        "foo=bar",
        "",
        "\0\u{1}",
        "export FLANNEL_MTU=1",
        " FLANNEL_MTU=1",
        "flannel_mtu=1",
        "FLANNEL_MTU =1",
        "FLANNEL_MT",
    ] {
        assert_eq!(missing(content), all, "{content:?}");
    }
    assert_eq!(missing(V4), "FLANNEL_MTU, FLANNEL_IPMASQ");
    assert_eq!(
        missing(&format!("FLANNEL_NETWORK=10.1.0.0/16\n{REST}")),
        "FLANNEL_SUBNET, FLANNEL_IPV6_SUBNET"
    );
    assert_eq!(
        missing(&format!("FLANNEL_IPV6_SUBNET=fc00::1/64\n{REST}")),
        "FLANNEL_NETWORK, FLANNEL_IPV6_NETWORK"
    );
}

#[test]
fn families_need_not_go_with_their_keys() {
    let env = parse(&format!(
        "FLANNEL_NETWORK=fc00::/48\nFLANNEL_SUBNET=fc00::1/64\n{REST}"
    ));
    assert_eq!(texts(&env.subnets), ["fc00::/64"]);
    let crossed = parse(&format!(
        "FLANNEL_NETWORK=10.1.0.0/16\nFLANNEL_IPV6_SUBNET=fc00::1/64\n{REST}"
    ));
    assert_eq!((crossed.networks.len(), crossed.subnets.len()), (1, 1));
}

#[test]
fn lists_are_masked_and_hold_each_network_once() {
    let env = parse(&format!(
        "{V4}{REST}FLANNEL_NETWORK=192.168.7.1/16,10.1.2.3/16,192.168.0.0/16"
    ));
    assert_eq!(texts(&env.networks), ["192.168.0.0/16", "10.1.0.0/16"]);
    assert_eq!(
        texts(&parse(&format!("{V4}{REST}FLANNEL_IPV6_NETWORK=FC00:0::1/48")).networks)[1],
        "fc00::/48"
    );
}

#[test]
fn the_last_line_of_a_key_counts_and_carriage_returns_do_not() {
    let env = parse(&format!("{V4}{REST}FLANNEL_MTU=1\nFLANNEL_IPMASQ=TRUE").replace('\n', "\r\n"));
    assert_eq!((env.mtu, env.ip_masq), (1, false));
    for no in ["", "1", "True", "true ", "\"true\"", "true=", "true\r"] {
        assert!(
            !parse(&format!("{V4}{REST}FLANNEL_IPMASQ={no}\r\n")).ip_masq,
            "{no:?}"
        );
    }
    assert!(
        parse(&format!(
            "{V4}FLANNEL_MTU=4294967295\nFLANNEL_IPMASQ=true\r"
        ))
        .ip_masq
    );
}

fn check(line: &str, number: usize, sentence: &str) {
    match SubnetEnv::parse(format!("{V4}{line}\n").as_bytes()) {
        Err(ContentError::Line(at, error)) => {
            assert_eq!((at, error.to_string().as_str()), (number, sentence))
        }
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn bad_values_come_before_missing_keys() {
    check("FLANNEL_SUBNET=", 3, "invalid CIDR address: ");
    check(
        "FLANNEL_SUBNET=10.1.17.1",
        3,
        "invalid CIDR address: 10.1.17.1",
    );
    check(
        "FLANNEL_SUBNET=10.1.0.1/24,10.2.0.1/24",
        3,
        "invalid CIDR address: 10.1.0.1/24,10.2.0.1/24",
    );
    check(
        "FLANNEL_NETWORK=10.1.0.0/16, 10.2.0.0/16",
        3,
        "invalid CIDR address:  10.2.0.0/16",
    );
    check(
        "#\nFLANNEL_NETWORK=10.1.0.0/16,",
        4,
        "invalid CIDR address: ",
    );
    check(
        "FLANNEL_IPV6_NETWORK=fc00::/129",
        3,
        "invalid CIDR address: fc00::/129",
    );
    check("FLANNEL_IPV6_SUBNET=x=y", 3, "invalid CIDR address: x=y");
    check(
        "FLANNEL_MTU=1472 ",
        3,
        "strconv.ParseUint: parsing \"1472 \": invalid syntax",
    );
    check(
        "FLANNEL_MTU=",
        3,
        "strconv.ParseUint: parsing \"\": invalid syntax",
    );
    check(
        "FLANNEL_MTU=+1",
        3,
        "strconv.ParseUint: parsing \"+1\": invalid syntax",
    );
    check(
        "FLANNEL_MTU=0x5",
        3,
        "strconv.ParseUint: parsing \"0x5\": invalid syntax",
    );
    check(
        "FLANNEL_MTU=4294967296",
        3,
        "strconv.ParseUint: parsing \"4294967296\": value out of range",
    );
    check(
        &format!("FLANNEL_MTU={}", "9".repeat(999)),
        3,
        &format!(
            "strconv.ParseUint: parsing \"{}\": value out of range",
            "9".repeat(999)
        ),
    );
}

// K06
#[test]
fn k06_a_key_cut_off_before_its_value_is_no_panic() {
    for key in KEYS {
        check(
            key,
            3,
            &format!("malformed line \"{key}\": no `=` after the key"),
        );
    }
}

#[test]
fn lines_are_bounded() {
    let long = |length: usize| format!("{V4}{REST}#{}", "x".repeat(length - 1));
    assert!(SubnetEnv::parse(long(65_535).as_bytes()).is_ok());
    let error = SubnetEnv::parse(long(65_536).as_bytes()).unwrap_err();
    assert_eq!(error, ContentError::Line(5, LineError::TooLong));
    assert_eq!(
        LineError::TooLong.to_string(),
        "bufio.Scanner: token too long"
    );
    // What comes first is reported first.
    assert_eq!(
        SubnetEnv::parse(format!("FLANNEL_MTU\n{}", long(65_536)).as_bytes()),
        Err(ContentError::Line(1, LineError::NoValue("FLANNEL_MTU")))
    );
}

#[test]
fn no_bytes_make_it_panic() {
    let whole = format!("{V4}{V6}{REST}");
    for end in 0..=whole.len() {
        let _ = SubnetEnv::parse(&whole.as_bytes()[..end]);
        let mut bytes = whole.clone().into_bytes();
        bytes
            .iter_mut()
            .skip(end)
            .step_by(7)
            .for_each(|byte| *byte = 0xff);
        let _ = SubnetEnv::parse(&bytes);
    }
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let load = |path: &str| SubnetEnv::load(path).unwrap_err().to_string();
    assert_eq!(
        load(&path("none")),
        format!("open {}: no such file or directory", path("none"))
    );
    assert_eq!(load(""), "open : no such file or directory");
    assert_eq!(
        load(&path("")),
        format!("read {}: is a directory", path(""))
    );
    let pipe = std::process::Command::new("mkfifo")
        .arg(path("pipe"))
        .status();
    assert!(pipe.unwrap().success());
    for special in [path("pipe"), "/dev/zero".to_owned()] {
        assert_eq!(
            load(&special),
            format!("open {special}: not a regular file")
        );
    }
    std::fs::write(path("part"), V4).unwrap();
    assert_eq!(
        load(&path("part")),
        format!("{} is missing FLANNEL_MTU, FLANNEL_IPMASQ", path("part"))
    );
    std::fs::write(path("huge"), "\n".repeat((1 << 20) + 1)).unwrap();
    assert_eq!(
        load(&path("huge")),
        format!("read {}: file is larger than 1 MiB", path("huge"))
    );
    assert!(load("a\0b").starts_with("open a\0b: "));
}
