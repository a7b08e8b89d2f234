//! The state files: what each attachment's delegate was given, so that DEL can give it again.
//!
//! * `<dataDir>/<container id>` is the reference's file, which it shares between all interfaces of a container.
//! * `<dataDir>/.by-interface/<interface>/<container id>` is ours beside it, so that two attachments of one container
//!   do not take each other's state away. No container id starts with a dot.
//! * `<dataDir>/.cni-flannel-*` are files being written.
//!
//! Files have mode 0600, folders 0700. Both files of an attachment hold the same bytes: the delegate's configuration.

mod draft;

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use cni_spec::Attachment;
use cni_spec::name::{ContainerId, IfName};

use crate::delegate::Delegate;
use crate::error::Error;
use crate::file;
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

/// What an attachment's files held before they were replaced, be it a configuration or not; `None` where there was no
/// file.
#[derive(Debug)]
pub(crate) struct Before {
    own: Option<Vec<u8>>,
    shared: Option<Vec<u8>>,
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
    /// A file or folder that cannot be made, or a file in its place that cannot be read. Then all is as it was.
    pub(crate) fn save(&self, at: &Attachment, bytes: &[u8]) -> Result<Before, Error> {
        if bytes.len() as u64 > LIMIT {
            return Err(Error::DelegateSize);
        }
        let (own, shared) = (
            self.own(&at.ifname, &at.container_id),
            self.shared(&at.container_id),
        );
        make_folder(&self.folder)?;
        make_folder(&self.by_interface().join(at.ifname.as_str()))?;
        let before = Before {
            shared: replaceable(&shared)?,
            own: replaceable(&own)?,
        };
        let (own_draft, shared_draft) = (
            Draft::write(&self.folder, &own, bytes)?,
            Draft::write(&self.folder, &shared, bytes)?,
        );
        // One that survives a power cut whole is enough. Its name may get lost with the power: then the namespace is gone
        // too, DEL rebuilds what it needs, and a wait for the folder would be most of an ADD's time.
        shared_draft.sync()?;
        shared_draft.publish()?;
        if let Err(error) = own_draft.publish() {
            self.restore(&shared, before.shared.as_deref());
            return Err(error);
        }
        Ok(before)
    }

    /// Makes what was stored before an ADD that failed the state again: it is what still stands. Where the attachment
    /// had nothing stored that can be used, its new state stays for DEL; a shared file of others comes back all the same.
    pub(crate) fn put_back(&self, at: &Attachment, before: &Before) {
        let is_whole = |bytes: &Vec<u8>| Delegate::from_stored(bytes.clone()).is_some();
        let stands = before.own.as_ref().is_some_and(is_whole);
        if stands {
            let own = self.own(&at.ifname, &at.container_id);
            self.restore(&own, before.own.as_deref());
        }
        if stands || before.shared.as_ref().is_some_and(is_whole) {
            self.restore(&self.shared(&at.container_id), before.shared.as_deref());
        }
    }

    /// Makes a file what it was, or takes it away if it was not there.
    fn restore(&self, path: &Path, before: Option<&[u8]>) {
        // The error that brought us here is the one to report.
        let _ = match before {
            Some(bytes) => Draft::write(&self.folder, path, bytes).and_then(Draft::publish),
            None => remove(path),
        };
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
    let Some(bytes) = content(path)? else {
        return Ok(None);
    };
    let delegate = if bytes.len() as u64 > LIMIT {
        None
    } else {
        Delegate::from_stored(bytes)
    };
    Ok(Some(delegate.map_or(State::Torn, State::Whole)))
}

/// The content of a file that is to be replaced, all of it, so that it can come back; `None` if there is none.
fn replaceable(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    if path.is_dir() {
        return Err(failed("open", path)(ErrorKind::IsADirectory.into()));
    }
    match content(path)? {
        Some(bytes) if bytes.len() as u64 > LIMIT => {
            let too_large = io::Error::new(ErrorKind::FileTooLarge, "file is larger than 1 MiB");
            Err(failed("open", path)(too_large))
        }
        content => Ok(content),
    }
}

/// The bytes of a file, or the first ones of a larger one than we write; `None` if there is none.
fn content(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    let file = match file::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(failed("open", path))?,
    };
    let mut bytes = Vec::new();
    file.take(LIMIT + 1)
        .read_to_end(&mut bytes)
        .map_err(failed("read", path))?;
    Ok(Some(bytes))
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
