//! Installing: the program is put beside its place, then takes it under every name.

use std::fmt;
use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The folder inside the target that holds what is new and what is replaced, until all is in place.
const STAGING: &str = ".cni-plugins-install";

/// A file that could not be put in place.
#[derive(Debug)]
pub(crate) struct InstallError {
    doing: &'static str,
    path: PathBuf,
    error: io::Error,
    /// What has become of the programs that were there.
    outcome: &'static str,
}

/// Installs `program` into `folder` under each of `names`, all of them links to one file.
///
/// A plugin that is running, or is started meanwhile, is a whole old or a whole new one. What is replaced comes back if
/// a later name cannot be replaced. Whoever interrupts this leaves whole programs too, old and new ones, and the next
/// call tidies up. Two calls at once wait for each other.
///
/// # Errors
/// The first file that could not be written or renamed; then everything is as it was.
pub(crate) fn install(program: &Path, folder: &Path, names: &[&str]) -> Result<(), InstallError> {
    fs::create_dir_all(folder).map_err(failed("make", folder))?;
    let target = File::open(folder).map_err(failed("open", folder))?;
    target.lock().map_err(failed("lock", folder))?;
    let staging = folder.join(STAGING);
    remove_all(&staging)?;
    let done =
        stage(program, folder, &staging, names).and_then(|()| replace(folder, &staging, names));
    let swept = remove_all(&staging);
    done?;
    swept
        .and_then(|()| target.sync_all().map_err(failed("write", folder)))
        .map_err(|error| InstallError {
            outcome: "all programs were replaced",
            ..error
        })
}

/// Prepares the new links, and second links to what they will replace.
fn stage(
    program: &Path,
    folder: &Path,
    staging: &Path,
    names: &[&str],
) -> Result<(), InstallError> {
    for part in ["new", "old"] {
        let part = staging.join(part);
        fs::create_dir_all(&part).map_err(failed("make", &part))?;
    }
    let copy = staging.join("program");
    // In one piece: so the kernel keeps and maps it in large ones, which every start is a tenth of a millisecond shorter by.
    let bytes = fs::read(program).map_err(failed("read", program))?;
    fs::write(&copy, bytes).map_err(failed("write", &copy))?;
    fs::set_permissions(&copy, Permissions::from_mode(0o755)).map_err(failed("change", &copy))?;
    // A power cut after the rename must not leave an empty program under a plugin's name.
    File::open(&copy)
        .and_then(|file| file.sync_all())
        .map_err(failed("write", &copy))?;
    for name in names {
        let (new, old, current) = (
            staging.join("new").join(name),
            staging.join("old").join(name),
            folder.join(name),
        );
        fs::hard_link(&copy, &new).map_err(failed("link", &new))?;
        match fs::hard_link(&current, &old) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(failed("keep", &current)(error));
            }
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// Renames the new links over the current files; if one cannot be, puts the ones before it back.
fn replace(folder: &Path, staging: &Path, names: &[&str]) -> Result<(), InstallError> {
    for (position, name) in names.iter().enumerate() {
        let (new, current) = (staging.join("new").join(name), folder.join(name));
        if let Err(error) = fs::rename(&new, &current) {
            let mut error = failed("replace", &current)(error);
            for name in &names[..position] {
                let (old, current) = (staging.join("old").join(name), folder.join(name));
                let back = if old.exists() {
                    fs::rename(old, current)
                } else {
                    fs::remove_file(current)
                };
                if back.is_err() {
                    error.outcome = "some programs were replaced and could not be put back";
                }
            }
            return Err(error);
        }
    }
    Ok(())
}

fn remove_all(staging: &Path) -> Result<(), InstallError> {
    match fs::remove_dir_all(staging) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(failed("remove", staging)(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> InstallError {
    let path = path.to_owned();
    move |error| InstallError {
        doing,
        path,
        error,
        outcome: "nothing was replaced",
    }
}

impl fmt::Display for InstallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "cannot {} {}: {}; {}",
            self.doing,
            self.path.display(),
            self.error,
            self.outcome
        )
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    const NAMES: [&str; 3] = ["one", "two", "three"];

    fn program(folder: &Path, content: &str) -> PathBuf {
        let file = folder.join("source");
        fs::write(&file, content).unwrap();
        file
    }

    fn installed(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn every_name_is_the_same_file() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path().join("opt/cni/bin");
        for content in ["old", "new"] {
            install(&program(scratch.path(), content), &folder, &NAMES).unwrap();
            assert_eq!(installed(&folder), ["one", "three", "two"]);
            let inode = |name: &&str| fs::metadata(folder.join(name)).unwrap().ino();
            assert!(NAMES.iter().all(|name| inode(name) == inode(&"one")));
            assert_eq!(fs::read_to_string(folder.join("two")).unwrap(), content);
            assert_eq!(
                fs::metadata(folder.join("two")).unwrap().mode() & 0o777,
                0o755
            );
        }
    }

    #[test]
    fn others_stay() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path().join("bin");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("macvlan"), "theirs").unwrap();
        install(&program(scratch.path(), "new"), &folder, &NAMES).unwrap();
        assert_eq!(
            fs::read_to_string(folder.join("macvlan")).unwrap(),
            "theirs"
        );
    }

    #[test]
    fn what_was_replaced_comes_back() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path().join("bin");
        // A folder in the last name's place cannot be replaced.
        fs::create_dir_all(folder.join("three/full")).unwrap();
        fs::write(folder.join("one"), "old").unwrap();
        let error = install(&program(scratch.path(), "new"), &folder, &NAMES)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("/bin/three: ") && error.ends_with("nothing was replaced"),
            "{error}"
        );
        assert_eq!(fs::read_to_string(folder.join("one")).unwrap(), "old");
        assert_eq!(installed(&folder), ["one", "three"]);
    }

    #[test]
    fn the_remains_of_an_interrupted_call_go() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path().join("bin");
        fs::create_dir_all(folder.join(STAGING).join("new")).unwrap();
        fs::write(folder.join(STAGING).join("new/one"), "half").unwrap();
        install(&program(scratch.path(), "new"), &folder, &NAMES).unwrap();
        assert_eq!(installed(&folder), ["one", "three", "two"]);
    }

    #[test]
    fn many_at_once_wait_for_each_other() {
        let scratch = tempfile::tempdir().unwrap();
        let (source, folder) = (program(scratch.path(), "new"), scratch.path().join("bin"));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| install(&source, &folder, &NAMES).unwrap());
            }
        });
        assert_eq!(installed(&folder), ["one", "three", "two"]);
    }
}
