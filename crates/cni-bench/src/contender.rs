//! Who is measured: folders with plugins, and the floor.

use std::collections::HashMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, str};

use serde_json::Value;

use crate::Failure;
use crate::call::Call;
use crate::case::{Case, Network};
use crate::node::{FLOOR_BRIDGE, Pod};

/// Where Debian puts the reference's plugins.
const REFERENCE: &str = "/usr/lib/cni";

/// What a contender is to the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Ours as installed: one program, delegates called in process.
    Ours,
    /// Ours as a program each, delegates executed.
    Executed,
    /// The reference's, in Go.
    Reference,
    /// A folder named on the command line.
    Peer,
    /// The kernel's own part.
    Floor,
}

/// One of those who take turns.
#[derive(Clone, Debug)]
pub(crate) struct Contender {
    pub(crate) name: String,
    pub(crate) role: Role,
    /// What its `bridge` says of itself.
    pub(crate) about: String,
    /// For the floor, the program; else the folder with the plugins.
    path: PathBuf,
    /// Ours, for those that have no `flannel`: the reference's own was never part of its release.
    flannel: Option<PathBuf>,
}

/// What one call is about.
pub(crate) struct Attachment<'a> {
    pub(crate) id: &'a str,
    pub(crate) pod: &'a Pod,
    pub(crate) conf: &'a Value,
}

/// The build folder that this program lies in: the nearest one above that has the plugins.
pub(crate) fn target_folder() -> Result<PathBuf, Failure> {
    let program = env::current_exe()?;
    let target = program
        .ancestors()
        .find(|folder| folder.join("cni").is_dir());
    Ok(target
        .ok_or("no plugins are built: `make build`")?
        .to_owned())
}

impl Contender {
    /// All that are there, installed below `target/bench/`; ours and the floor must be there.
    ///
    /// What the linker wrote here and there lies in the page cache page by page, and is mapped so; what was written in
    /// one piece, as `cni-plugins install` does, in large pieces. That is a tenth of an ADD, so all are installed alike.
    pub(crate) fn all(
        target: &Path,
        peers: &[(String, PathBuf)],
    ) -> Result<Vec<Contender>, Failure> {
        let installed = target.join("bench/installed");
        let install = |name: &str, from: &Path| -> Result<PathBuf, Failure> {
            let to = installed.join(name);
            match fs::remove_dir_all(&to) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
                Ok(()) | Err(_) => {}
            }
            fs::create_dir_all(&to)?;
            copy(from, &to).map_err(|error| format!("{}: {error}", from.display()))?;
            Ok(to)
        };
        let linked = install("ours", &target.join("cni"))?;
        let separate = target.join("cni-separate");
        let separate = match separate.is_dir() {
            true => install("executed", &separate)?,
            false => separate,
        };
        let flannel = [&separate, &linked]
            .map(|folder| folder.join("flannel"))
            .into_iter()
            .find(|file| file.exists());
        let folder = |name: &str, role, path: PathBuf| Contender {
            name: name.to_owned(),
            role,
            about: about(&path.join("bridge"))
                .or_else(|| about(&path.join("loopback")))
                .unwrap_or_default(),
            flannel: flannel.clone(),
            path,
        };
        let mut all = vec![folder("ours", Role::Ours, linked)];
        if separate.is_dir() {
            all.push(folder("ours, executed", Role::Executed, separate));
        }
        if Path::new(REFERENCE).is_dir() {
            let reference = install("reference", Path::new(REFERENCE))?;
            all.push(folder("reference", Role::Reference, reference));
        }
        for (name, path) in peers {
            let peer = install(&format!("peer-{name}"), path)?;
            all.push(folder(name, Role::Peer, peer));
        }
        let built = env::current_exe()?.with_file_name("floor");
        if !built.exists() {
            return Err("`floor` is not built: `cargo build --release -p cni-bench`".into());
        }
        let floor = installed.join("floor");
        copy_file(&built, &floor)?;
        let name = "floor".to_owned();
        all.push(Contender {
            name,
            role: Role::Floor,
            about: String::new(),
            path: floor,
            flannel: None,
        });
        Ok(all)
    }

    /// Is it built here?
    pub(crate) fn is_ours(&self) -> bool {
        matches!(self.role, Role::Ours | Role::Executed | Role::Floor)
    }

    /// Why this one cannot take part; `None` if it can.
    pub(crate) fn obstacle(&self, case: &Case) -> Option<String> {
        if self.role == Role::Floor {
            return case
                .floor
                .is_empty()
                .then(|| "the floor is a plain bridge's".to_owned());
        }
        let missing = case
            .network
            .plugins()
            .iter()
            .find(|plugin| !self.program(plugin).exists());
        if let Some(plugin) = missing {
            return Some(format!("has no `{plugin}`"));
        }
        let key: &[u8] = b"ipMasqBackend";
        let knows = |program: PathBuf| {
            fs::read(program)
                .is_ok_and(|bytes| bytes.windows(key.len()).any(|window| window == key))
        };
        let lacks = case.network == Network::NftablesMasquerade && !knows(self.program("bridge"));
        lacks.then(|| "has no nftables backend".to_owned())
    }

    /// The call of one verb.
    pub(crate) fn call(&self, case: &Case, verb: &str, at: &Attachment<'_>) -> Call {
        let plugin = at.conf["type"].as_str().unwrap_or_default();
        Call {
            program: self.program(plugin),
            arguments: Vec::new(),
            environment: vec![
                ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin".to_owned()),
                ("CNI_COMMAND", verb.to_owned()),
                ("CNI_CONTAINERID", at.id.to_owned()),
                ("CNI_NETNS", at.pod.path()),
                ("CNI_IFNAME", case.network.ifname().to_owned()),
                ("CNI_PATH", self.path.display().to_string()),
            ],
            stdin: at.conf.to_string().into_bytes(),
        }
    }

    /// The floor's call of `add`, `del` or `start`; `host` names the pod's link on the node.
    pub(crate) fn floor_call(&self, verb: &str, pod: &Pod, host: &str) -> Call {
        let arguments: &[String] = &[
            verb.to_owned(),
            pod.path(),
            FLOOR_BRIDGE.to_owned(),
            host.to_owned(),
        ];
        let used = match verb {
            "add" => 4,
            "del" => 2,
            _ => 1,
        };
        Call {
            program: self.path.clone(),
            arguments: arguments[..used].to_vec(),
            environment: Vec::new(),
            stdin: Vec::new(),
        }
    }

    /// Does the program at `path` belong to this contender, rather than being a tool that a plugin runs?
    pub(crate) fn owns(&self, path: &Path) -> bool {
        path == self.path
            || path.parent() == Some(&self.path)
            || Some(path) == self.flannel.as_deref()
    }

    /// The size of the program on disk, in bytes, where one program is every plugin; else `None`.
    pub(crate) fn multi_call_size(&self) -> Option<u64> {
        let [bridge, host_local] =
            ["bridge", "host-local"].map(|name| fs::metadata(self.path.join(name)).ok());
        let (bridge, host_local) = (bridge?, host_local?);
        (bridge.ino() == host_local.ino()).then_some(bridge.len())
    }

    fn program(&self, plugin: &str) -> PathBuf {
        let own = self.path.join(plugin);
        match &self.flannel {
            Some(flannel) if plugin == "flannel" && !own.exists() => flannel.clone(),
            Some(_) | None => own,
        }
    }
}

/// Copies the files of a folder; those that are one stay one.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let mut copies: HashMap<(u64, u64), PathBuf> = HashMap::new();
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let file = fs::metadata(entry.path())?;
        if !file.is_file() {
            continue;
        }
        let target = to.join(entry.file_name());
        match copies.get(&(file.dev(), file.ino())) {
            Some(first) => fs::hard_link(first, &target)?,
            None => {
                copy_file(&entry.path(), &target)?;
                copies.insert((file.dev(), file.ino()), target);
            }
        }
    }
    Ok(())
}

fn copy_file(from: &Path, to: &Path) -> io::Result<()> {
    fs::write(to, fs::read(from)?)?;
    fs::set_permissions(to, fs::metadata(from)?.permissions())
}

/// The first line that a plugin prints when a person runs it.
fn about(program: &Path) -> Option<String> {
    let output = Command::new(program).env_clear().output().ok()?;
    str::from_utf8(&output.stderr)
        .ok()?
        .lines()
        .next()
        .map(str::to_owned)
}
