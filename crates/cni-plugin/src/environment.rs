//! The environment as a value, so that every rule can be tested with a map.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use cni_spec::request::{Command, Variables};

/// The variables of the process, the protocol's and all others: a delegate inherits them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    variables: BTreeMap<OsString, OsString>,
    /// `CNI_NETNS` has been found to be no namespace of this process's.
    pub(crate) netns_is_foreign: bool,
}

impl Environment {
    /// The variable's text, with anything that is not UTF-8 replaced; empty if unset.
    pub fn text(&self, name: &str) -> String {
        self.raw(name).to_string_lossy().into_owned()
    }

    /// The variable's bytes; empty if unset.
    pub fn raw(&self, name: &str) -> &OsStr {
        self.variables
            .get(OsStr::new(name))
            .map_or(OsStr::new(""), OsString::as_os_str)
    }

    /// The same environment with another verb, as a delegate gets it.
    pub fn with_command(&self, command: Command) -> Environment {
        let mut changed = self.clone();
        let variables = &mut changed.variables;
        variables.insert("CNI_COMMAND".into(), command.as_str().into());
        changed
    }

    /// The same environment without a variable.
    pub(crate) fn without(&self, name: &str) -> Environment {
        let mut changed = self.clone();
        changed.variables.remove(OsStr::new(name));
        changed
    }

    /// All variables.
    pub fn iter(&self) -> impl Iterator<Item = (&OsString, &OsString)> {
        self.variables.iter()
    }

    /// The folders of `CNI_PATH` in order; an empty element is the current folder. Empty if unset.
    pub fn plugin_folders(&self) -> Vec<PathBuf> {
        let list = self.raw("CNI_PATH");
        if list.is_empty() {
            return Vec::new();
        }
        let folder = |bytes: &[u8]| PathBuf::from(OsStr::from_bytes(bytes));
        list.as_bytes()
            .split(|&byte| byte == b':')
            .map(folder)
            .collect()
    }

    /// Is printing of the plan asked for? Variable: `CNI_TRACE=1`.
    pub fn trace(&self) -> bool {
        self.raw("CNI_TRACE") == "1"
    }

    /// May the plugin work in its own namespace? Variable: `CNI_NETNS_OVERRIDE`, `1` or `true` in any case.
    pub(crate) fn netns_override(&self) -> bool {
        matches!(
            self.text("CNI_NETNS_OVERRIDE").to_uppercase().as_str(),
            "1" | "TRUE"
        )
    }

    /// The protocol's variables.
    pub(crate) fn variables(&self) -> Variables {
        Variables {
            command: self.text("CNI_COMMAND"),
            container_id: self.text("CNI_CONTAINERID"),
            netns: self.text("CNI_NETNS"),
            ifname: self.text("CNI_IFNAME"),
            args: self.text("CNI_ARGS"),
            path: self.text("CNI_PATH"),
        }
    }
}

impl<K: Into<OsString>, V: Into<OsString>> FromIterator<(K, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(variables: I) -> Environment {
        let variables = variables.into_iter();
        Environment {
            variables: variables
                .map(|(key, value)| (key.into(), value.into()))
                .collect(),
            netns_is_foreign: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // P22
    #[test]
    fn p22_a_delegate_gets_its_own_command() {
        let unset = Environment::from_iter([("A", "b")]);
        assert_eq!(unset.with_command(Command::Del).text("CNI_COMMAND"), "DEL");
        assert_eq!(unset.with_command(Command::Del).text("A"), "b");
        let set = Environment::from_iter([("CNI_COMMAND", "ADD")]);
        assert_eq!(
            set.with_command(Command::Check),
            Environment::from_iter([("CNI_COMMAND", "CHECK")])
        );
    }

    #[test]
    fn an_empty_folder_is_the_current_one() {
        let folders = |list: &str| Environment::from_iter([("CNI_PATH", list)]).plugin_folders();
        assert_eq!(
            folders("/a::/b"),
            [PathBuf::from("/a"), PathBuf::new(), PathBuf::from("/b")]
        );
        assert!(folders("").is_empty());
    }
}
