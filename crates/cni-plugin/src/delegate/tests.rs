use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::Environment;

/// A folder with one script in it, as a delegate.
struct Folder(PathBuf);

impl Folder {
    fn with(name: &str, script: &str) -> Folder {
        let id = format!(
            "cni-plugin-test-{}-{:?}",
            process::id(),
            thread::current().id()
        );
        let folder = std::env::temp_dir().join(id);
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join(name);
        fs::write(&file, script).unwrap();
        fs::set_permissions(file, Permissions::from_mode(0o755)).unwrap();
        Folder(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn with_call<T>(path: &str, act: impl FnOnce(&Call<'_>) -> T) -> T {
    let environment = Environment::from_iter([
        ("CNI_PATH", path),
        ("PATH", "/usr/bin:/bin"),
        ("KEPT", "yes"),
    ]);
    act(&Call {
        environment: &environment,
        registry: &[],
        stdin: b"{}".to_vec(),
        conf: Value::Null,
        name: cni_spec::name::NetworkName::new("net").unwrap(),
        version: Version::V1_0_0,
        stderr: Default::default(),
    })
}

fn run(script: &str) -> Result<String, Failure> {
    let folder = Folder::with("delegate", script);
    with_call(&folder.0.to_string_lossy(), |call| {
        call.delegate(Command::Del, "delegate", b"the input")
    })
    .map(|stdout| String::from_utf8(stdout).unwrap())
}

// P23
#[test]
fn p23_where_a_delegate_is_found() {
    let folder = Folder::with("there", "");
    let path = format!("/nowhere:{}", folder.0.display());
    with_call(&path, |call| {
        assert_eq!(call.find_plugin("there").unwrap(), folder.0.join("there"));
        assert_eq!(
            call.find_plugin("nope").unwrap_err().msg,
            format!(
                "failed to find plugin \"nope\" in path [/nowhere {}]",
                folder.0.display()
            )
        );
        assert_eq!(
            call.find_plugin("").unwrap_err().msg,
            "no plugin name provided"
        );
        assert_eq!(
            call.find_plugin("../x").unwrap_err().msg,
            "invalid plugin name: ../x"
        );
    });
    with_call("", |call| {
        assert_eq!(call.find_plugin("x").unwrap_err().msg, "no paths provided")
    });
}

// P22, P24
#[test]
fn p24_a_delegate_gets_input_and_environment() {
    let seen = run("#!/bin/sh\ncat; echo; echo $CNI_COMMAND $KEPT").unwrap();
    assert_eq!(seen, "the input\nDEL yes\n");
}

// P24
#[test]
fn p24_standard_error_is_passed_on_after_success_only() {
    let folder = Folder::with("delegate", "#!/bin/sh\necho note >&2; exit $(cat)");
    with_call(&folder.0.to_string_lossy(), |call| {
        assert!(call.delegate(Command::Add, "delegate", b"1").is_err());
        assert!(call.stderr.borrow().is_empty());
        assert!(call.delegate(Command::Add, "delegate", b"0").is_ok());
        assert_eq!(*call.stderr.borrow(), b"note\n");
    });
}

// P24
#[test]
fn p24_what_a_failed_delegate_says() {
    let check = |script: &str, code: u32, msg: &str| {
        let failure = run(script).unwrap_err();
        assert_eq!(
            (failure.code.0, failure.msg.as_str()),
            (code, msg),
            "{script}"
        );
    };
    check(
        "#!/bin/sh\necho '{\"code\": 42, \"msg\": \"my\", \"details\": \"d\"}'; exit 1",
        42,
        "my",
    );
    check("#!/bin/sh\necho '{\"msg\": \"my\"}'; exit 1", 0, "my");
    check(
        "#!/bin/sh\necho some >&2; exit 3",
        0,
        "netplugin failed: \"some\\n\"",
    );
    check(
        "#!/bin/sh\nexit 3",
        0,
        "netplugin failed with no error message: exit status 3",
    );
    check(
        "#!/bin/sh\nkill -9 $$",
        0,
        "netplugin failed with no error message: signal: killed",
    );
    check(
        "#!/bin/sh\nprintf nope; exit 1",
        0,
        "netplugin failed but error parsing its diagnostic message \"nope\": invalid character 'o' in literal",
    );
}

#[test]
fn a_program_that_cannot_be_run_is_named() {
    let folder = Folder::with("delegate", "#!/bin/sh\n");
    fs::set_permissions(folder.0.join("delegate"), Permissions::from_mode(0o644)).unwrap();
    let failure = with_call(&folder.0.to_string_lossy(), |call| {
        call.delegate(Command::Add, "delegate", b"")
    })
    .unwrap_err();
    let text = format!(
        "fork/exec {}/delegate: permission denied",
        folder.0.display()
    );
    assert_eq!(
        failure.msg,
        format!("netplugin failed with no error message: {text}")
    );
}

#[test]
fn a_delegate_that_reads_nothing_does_not_hang_us() {
    let folder = Folder::with("delegate", "#!/bin/sh\necho '{}'");
    let input = vec![b' '; 1 << 20];
    with_call(&folder.0.to_string_lossy(), |call| {
        assert_eq!(
            call.delegate(Command::Add, "delegate", &input).unwrap(),
            b"{}\n"
        );
    });
}

// P21
#[test]
fn p21_a_result_takes_the_configs_version() {
    let folder = Folder::with(
        "delegate",
        "#!/bin/sh\necho '{\"ips\": [{\"address\": \"10.0.0.1/8\"}]}'",
    );
    with_call(&folder.0.to_string_lossy(), |call| {
        let (success, version) = call
            .delegate_add("delegate", br#"{"cniVersion":"0.4.0"}"#)
            .unwrap();
        assert_eq!((success.ips.len(), version), (1, Version::V0_4_0));
        let lease = Lease::acquire(call, "delegate").unwrap();
        assert_eq!(lease.success().ips.len(), 1);
        lease.keep();
    });
}

#[test]
fn a_lease_goes_back_unless_it_is_kept() {
    let script = "#!/bin/sh\necho $CNI_COMMAND >>\"$(dirname \"$0\")/log\"; [ $CNI_COMMAND = DEL ] || echo '{}'";
    let folder = Folder::with("delegate", script);
    with_call(&folder.0.to_string_lossy(), |call| {
        Lease::acquire(call, "delegate").unwrap().keep();
        drop(Lease::acquire(call, "delegate").unwrap());
    });
    assert_eq!(
        fs::read_to_string(folder.0.join("log")).unwrap(),
        "ADD\nADD\nDEL\n"
    );
}
