//! What the runtime asks for: the environment as a typed request (CNI specification, "Parameters").

use std::fmt;
use std::path::PathBuf;

use crate::name::{ContainerId, IfName};
use crate::{Code, Failure};

/// A verb of the protocol. Variable: `CNI_COMMAND`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// Attach a container.
    Add,
    /// Detach it.
    Del,
    /// Is it attached as ADD left it?
    Check,
    /// Remove what no valid attachment owns.
    Gc,
    /// Could ADD be served?
    Status,
    /// Which versions are supported?
    Version,
}

impl Command {
    /// The verb with exactly this text.
    pub fn parse(text: &str) -> Option<Command> {
        [
            Command::Add,
            Command::Del,
            Command::Check,
            Command::Gc,
            Command::Status,
            Command::Version,
        ]
        .into_iter()
        .find(|command| command.as_str() == text)
    }

    /// The text on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Command::Add => "ADD",
            Command::Del => "DEL",
            Command::Check => "CHECK",
            Command::Gc => "GC",
            Command::Status => "STATUS",
            Command::Version => "VERSION",
        }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One container's interface on one network: what ADD, DEL and CHECK are about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Variable: `CNI_CONTAINERID`.
    pub container_id: ContainerId,
    /// The namespace's path as the runtime wrote it; `None` only for DEL. Variable: `CNI_NETNS`.
    pub netns: Option<PathBuf>,
    /// Variable: `CNI_IFNAME`.
    pub ifname: IfName,
    /// `K=V;K=V`, not yet parsed; empty if unset. Variable: `CNI_ARGS`.
    pub args: String,
}

impl Attachment {
    /// The namespace's path as text, as results and messages show it; empty if there is none.
    pub fn netns_text(&self) -> String {
        self.netns
            .as_ref()
            .map(|path| path.to_string_lossy().into_owned())
            .unwrap_or_default()
    }
}

/// The protocol's variables as the process found them; unset and empty are the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Variables {
    /// `CNI_COMMAND`.
    pub command: String,
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// `CNI_NETNS`.
    pub netns: String,
    /// `CNI_IFNAME`.
    pub ifname: String,
    /// `CNI_ARGS`.
    pub args: String,
    /// `CNI_PATH`.
    pub path: String,
}

impl Variables {
    /// Are all variables there that the verb needs, and well formed?
    ///
    /// A malformed one is reported at once, missing ones together at the end. An unknown verb needs only `CNI_PATH`'s
    /// presence to be judged elsewhere, so nothing is required here.
    pub fn check(&self) -> Result<(), Failure> {
        use Command::{Add, Check, Del, Gc, Status};
        let command = Command::parse(&self.command);
        let needs =
            |commands: &[Command]| command.is_some_and(|command| commands.contains(&command));
        let mut missing = Vec::new();
        if needs(&[Add, Del, Check]) {
            match self.container_id.as_str() {
                "" => missing.push("CNI_CONTAINERID"),
                id => drop(ContainerId::new(id)?),
            }
        }
        if needs(&[Add, Check]) && self.netns.is_empty() {
            missing.push("CNI_NETNS");
        }
        if needs(&[Add, Del, Check]) {
            match self.ifname.as_str() {
                "" => missing.push("CNI_IFNAME"),
                name => drop(IfName::new(name)?),
            }
        }
        if needs(&[Add, Del, Check, Gc, Status]) && self.path.is_empty() {
            missing.push("CNI_PATH");
        }
        if missing.is_empty() {
            return Ok(());
        }
        let msg = format!("required env variables [{}] missing", missing.join(","));
        Err(Failure::new(Code::INVALID_ENVIRONMENT, msg))
    }

    /// The attachment that ADD, DEL and CHECK are about.
    pub fn attachment(&self) -> Result<Attachment, Failure> {
        Ok(Attachment {
            container_id: ContainerId::new(&self.container_id)?,
            netns: (!self.netns.is_empty()).then(|| PathBuf::from(&self.netns)),
            ifname: IfName::new(&self.ifname)?,
            args: self.args.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(command: &str) -> Variables {
        Variables {
            command: command.to_owned(),
            container_id: "some-container-id".to_owned(),
            netns: "/some/netns/path".to_owned(),
            ifname: "eth0".to_owned(),
            args: "some;extra;args".to_owned(),
            path: "/some/cni/path".to_owned(),
        }
    }

    // P02
    #[test]
    fn p02_what_each_verb_needs() {
        type Clear = fn(&mut Variables);
        let clear: [(&str, Clear); 4] = [
            ("CNI_CONTAINERID", |it| it.container_id.clear()),
            ("CNI_NETNS", |it| it.netns.clear()),
            ("CNI_IFNAME", |it| it.ifname.clear()),
            ("CNI_PATH", |it| it.path.clear()),
        ];
        for (command, needed) in [
            ("ADD", [true, true, true, true]),
            ("CHECK", [true, true, true, true]),
            ("DEL", [true, false, true, true]),
            ("GC", [false, false, false, true]),
            ("STATUS", [false, false, false, true]),
            ("VERSION", [false; 4]),
        ] {
            assert_eq!(full(command).check(), Ok(()));
            for ((name, clear), needed) in clear.iter().zip(needed) {
                let mut variables = full(command);
                clear(&mut variables);
                let expected =
                    Failure::new(Code(4), format!("required env variables [{name}] missing"));
                assert_eq!(
                    variables.check(),
                    if needed { Err(expected) } else { Ok(()) },
                    "{command} without {name}"
                );
            }
        }
    }

    // P03
    #[test]
    fn p03_missing_variables_are_reported_together() {
        let variables = Variables {
            command: "ADD".to_owned(),
            ..Variables::default()
        };
        assert_eq!(
            variables.check().unwrap_err().msg,
            "required env variables [CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH] missing"
        );
    }

    #[test]
    fn a_malformed_variable_hides_missing_ones() {
        let variables = Variables {
            netns: String::new(),
            container_id: "%".to_owned(),
            ..full("ADD")
        };
        assert_eq!(
            variables.check().unwrap_err().msg,
            "invalid characters in containerID"
        );
    }
}
