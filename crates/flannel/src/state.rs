//! The state files: what each attachment's delegate was given, so that DEL can give it again.
//!
//! * `<dataDir>/<container id>` is the reference's file, which it shares between all interfaces of a container.
//! * `<dataDir>/.by-interface/<interface>/<container id>` is ours beside it, so that two attachments of one container
//!   do not take each other's state away. No container id starts with a dot.
//! * `<dataDir>/.new-*` are files being written.
//!
//! Files have mode 0600, folders 0700. Both files of an attachment hold the same bytes: the delegate's configuration.

mod draft;

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use cni_spec::Attachment;
use cni_spec::name::{ContainerId, IfName};

use crate::delegate::Delegate;
use crate::error::Error;
use crate::state::draft::Draft;

/// Nothing larger than this many bytes is written or read.
const LIMIT: u64 = 1 << 20;

/// The folder of the state files. Wire: `dataDir`.
pub(crate) struct Store {
    folder: PathBuf,
}

/// What a state file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// A delegate's configuration.
    Whole(Delegate),
    /// Something else, such as what a power cut left.
    Torn,
}

/// What is stored of an attachment.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// From the file of this interface.
    pub(crate) own: Option<State>,
    /// From the file that the container's interfaces share; `None` if another of them may still need it.
    pub(crate) shared: Option<State>,
}

/// A state file, as GC finds it.
pub(crate) struct Entry {
    pub(crate) container_id: ContainerId,
    /// `None` for a shared file that has no other beside it: the reference's, or a crash's.
    pub(crate) ifname: Option<IfName>,
    pub(crate) state: State,
}

impl Store {
    pub(crate) fn at(folder: &str) -> Store {
        Store {
            folder: PathBuf::from(folder),
        }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// What is stored of an attachment.
    pub(crate) fn kept(&self, at: &Attachment) -> Result<Kept, Error> {
        let own = read(&self.own(&at.ifname, &at.container_id))?;
        let alone = self.others(at)?.is_empty();
        let shared = if alone {
            read(&self.shared(&at.container_id))?
        } else {
            None
        };
        Ok(Kept { own, shared })
    }

    /// Stores a delegate's configuration; what was stored before is given back, for [`Store::put_back`].
    ///
    /// # Errors
    /// A file or folder that cannot be made. Then all is as it was.
    pub(crate) fn save(&self, at: &Attachment, bytes: &[u8]) -> Result<Kept, Error> {
        if bytes.len() as u64 > LIMIT {
            return Err(Error::DelegateSize);
        }
        let (own, shared) = (
            self.own(&at.ifname, &at.container_id),
            self.shared(&at.container_id),
        );
        make_folder(&self.folder)?;
        make_folder(&self.by_interface().join(at.ifname.as_str()))?;
        let before = Kept {
            own: read(&own).unwrap_or_default(),
            shared: read(&shared).unwrap_or_default(),
        };
        let (own_draft, shared_draft) = (
            Draft::write(&self.folder, &own, bytes)?,
            Draft::write(&self.folder, &shared, bytes)?,
        );
        shared_draft.sync()?; // one that survives a power cut is enough
        shared_draft.publish()?;
        if let Err(error) = own_draft.publish() {
            if before.shared.is_none() {
                let _ = fs::remove_file(&shared); // the error that brought us here is the one to report
            }
            self.put_back(at, before);
            return Err(error);
        }
        Ok(before)
    }

    /// Makes what was stored before an ADD that failed the state again: it is what still stands. Where nothing was
    /// stored, the new state stays for DEL.
    pub(crate) fn put_back(&self, at: &Attachment, before: Kept) {
        let own = (before.own, self.own(&at.ifname, &at.container_id));
        let shared = (before.shared, self.shared(&at.container_id));
        for (state, path) in [own, shared] {
            if let Some(State::Whole(delegate)) = state {
                // The error that brought us here is the one to report.
                let _ = Draft::write(&self.folder, &path, &delegate.bytes).and_then(Draft::publish);
            }
        }
    }

    /// Forgets an attachment that is no more. The shared file goes with the container's last attachment, unless it is
    /// somebody else's (`keep_shared`); until then it holds what another one needs.
    pub(crate) fn forget(&self, at: &Attachment, keep_shared: bool) -> Result<(), Error> {
        let (own, shared) = (
            self.own(&at.ifname, &at.container_id),
            self.shared(&at.container_id),
        );
        let gone = read(&own)?;
        remove(&own)?;
        if keep_shared {
            return Ok(());
        }
        let others = self.others(at)?;
        let Some(other) = others.first() else {
            return remove(&shared);
        };
        match read(other)? {
            Some(State::Whole(delegate)) if gone.is_some() && read(&shared)? == gone => {
                Draft::write(&self.folder, &shared, &delegate.bytes)?.publish()
            }
            Some(State::Whole(_) | State::Torn) | None => Ok(()),
        }
    }

    /// All state files that can be read; empty if there is no such folder.
    pub(crate) fn entries(&self) -> Result<Vec<Entry>, Error> {
        let mut entries: Vec<Entry> = Vec::new();
        for (ifname, folder) in self.interfaces()? {
            for (name, path) in list(&folder)? {
                let names = (ContainerId::new(&name), IfName::new(&ifname));
                if let ((Ok(container_id), Ok(ifname)), Ok(Some(state))) = (names, read(&path)) {
                    entries.push(Entry {
                        container_id,
                        ifname: Some(ifname),
                        state,
                    });
                }
            }
        }
        let seen: HashSet<ContainerId> = entries.iter().map(|it| it.container_id.clone()).collect();
        for (name, path) in list(&self.folder)? {
            let Ok(container_id) = ContainerId::new(&name) else {
                continue;
            };
            if seen.contains(&container_id) {
                continue;
            }
            if let Ok(Some(state)) = read(&path) {
                entries.push(Entry {
                    container_id,
                    ifname: None,
                    state,
                });
            }
        }
        Ok(entries)
    }

    /// Removes what crashes left half written.
    pub(crate) fn sweep(&self) -> Result<(), Error> {
        draft::sweep(&self.folder)
    }

    fn shared(&self, container_id: &ContainerId) -> PathBuf {
        self.folder.join(container_id.as_str())
    }

    fn own(&self, ifname: &IfName, container_id: &ContainerId) -> PathBuf {
        self.by_interface()
            .join(ifname.as_str())
            .join(container_id.as_str())
    }

    fn by_interface(&self) -> PathBuf {
        self.folder.join(".by-interface")
    }

    /// The names of interfaces that there have been, and their folders.
    fn interfaces(&self) -> Result<Vec<(String, PathBuf)>, Error> {
        list(&self.by_interface())
    }

    /// The files of the container's other interfaces.
    fn others(&self, at: &Attachment) -> Result<Vec<PathBuf>, Error> {
        let others = self
            .interfaces()?
            .into_iter()
            .filter(|(ifname, _)| ifname != at.ifname.as_str());
        Ok(others
            .map(|(_, folder)| folder.join(at.container_id.as_str()))
            .filter(|file| file.exists())
            .collect())
    }
}

/// What a state file holds; `None` if there is none.
fn read(path: &Path) -> Result<Option<State>, Error> {
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(failed("open", path))?,
    };
    let mut bytes = Vec::new();
    file.take(LIMIT + 1)
        .read_to_end(&mut bytes)
        .map_err(failed("read", path))?;
    let delegate = if bytes.len() as u64 > LIMIT {
        None
    } else {
        Delegate::from_stored(bytes)
    };
    Ok(Some(delegate.map_or(State::Torn, State::Whole)))
}

/// What a folder holds, by name; nothing if there is no such folder. Names that are not UTF-8 are none of ours.
fn list(folder: &Path) -> Result<Vec<(String, PathBuf)>, Error> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        opened => opened.map_err(failed("open", folder))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed("read", folder))?.path();
        if let Some(name) = path.file_name().and_then(OsStr::to_str) {
            names.push((name.to_owned(), path));
        }
    }
    names.sort();
    Ok(names)
}

/// Removes a file; that there is none is no error.
fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(failed("remove", path)),
    }
}

/// A folder with all those above it.
fn make_folder(path: &Path) -> Result<(), Error> {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => return Ok(()),
        Ok(_) => return Err(failed("mkdir", path)(ErrorKind::NotADirectory.into())),
        Err(_) => {}
    }
    if let Some(parent) = path.parent().filter(|it| !it.as_os_str().is_empty()) {
        make_folder(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        made => made.map_err(failed("mkdir", path)),
    }
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |error| Error::State {
        operation,
        path: path.to_owned(),
        error,
    }
}

#[cfg(test)]
mod tests;
