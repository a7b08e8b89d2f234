//! From environment and standard input to an outcome, in the protocol's order.

use std::any::Any;
use std::cell::RefCell;
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use cni_spec::error::os_text;
use cni_spec::name::NetworkName;
use cni_spec::request::Command;
use cni_spec::{Code, Failure, Version, conf, json, version};
use serde::Deserialize;
use serde_json::Value;

use crate::{Call, Environment, Plugin, Registry};

/// What a call of a plugin leaves: at most one JSON document, text for people, and whether it failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// A result or an error object, or nothing.
    pub stdout: Vec<u8>,
    /// Text for people.
    pub stderr: Vec<u8>,
    /// The exit status: 1 if true, else 0.
    pub failed: bool,
}

/// Most configurations are not larger, so they come with one read; in bytes.
const USUAL_CONF: usize = 4096;

/// Runs one verb of `plugin`. `registry` holds the plugins that may be delegated to within this process.
pub fn dispatch(
    plugin: &dyn Plugin,
    registry: &'static Registry,
    environment: &Environment,
    stdin: &mut dyn Read,
) -> Outcome {
    let variables = environment.variables();
    if variables.command.is_empty() {
        let versions = plugin.versions().join(", ");
        let stderr = format!(
            "{}\nCNI protocol versions supported: {versions}\n",
            plugin.about()
        )
        .into_bytes();
        return Outcome {
            stderr,
            ..Outcome::default()
        };
    }
    if variables.command == Command::Version.as_str() {
        return Outcome {
            stdout: version_document(plugin),
            ..Outcome::default()
        };
    }
    let mut stderr = Vec::new();
    match verb(plugin, registry, environment, stdin, &mut stderr) {
        Ok(stdout) => Outcome {
            stdout,
            stderr,
            failed: false,
        },
        Err(failure) => Outcome {
            stdout: failure.to_json(),
            stderr,
            failed: true,
        },
    }
}

fn verb(
    plugin: &dyn Plugin,
    registry: &'static Registry,
    environment: &Environment,
    stdin: &mut dyn Read,
    stderr: &mut Vec<u8>,
) -> Result<Vec<u8>, Failure> {
    let variables = environment.variables();
    variables.check()?;
    let without_netns;
    let (environment, variables) = if variables.command == Command::Del.as_str()
        && is_own_netns(environment, &variables.netns)?
    {
        // The container has died and its process id is somebody else's now: there is no namespace to look into, but
        // all else that is left can be freed.
        stderr.extend_from_slice(OWN_NETNS_ON_DEL.as_bytes());
        without_netns = environment.without("CNI_NETNS");
        (&without_netns, without_netns.variables())
    } else {
        (environment, variables)
    };
    let mut text = Vec::with_capacity(USUAL_CONF);
    stdin.read_to_end(&mut text).map_err(|error| {
        Failure::new(
            Code::IO,
            format!("error reading from stdin: {}", os_text(&error)),
        )
    })?;
    let conf = parse(&text)?;
    let name = network_name(&conf)?;
    let Some(command) = Command::parse(&variables.command) else {
        return Err(Failure::new(
            Code::INVALID_ENVIRONMENT,
            format!("unknown CNI_COMMAND: {}", variables.command),
        ));
    };
    let version = conf_version(plugin, command, &conf)?;
    let call = Call {
        environment,
        registry,
        stdin: text,
        conf,
        name,
        version,
        stderr: RefCell::default(),
    };
    let done = catch_unwind(AssertUnwindSafe(|| match command {
        Command::Add => {
            refuse_own_netns(environment, &variables.netns)?;
            let result = plugin.add(&call, &variables.attachment()?)?;
            Ok(json::to_pretty(&result))
        }
        Command::Del => plugin
            .del(&call, &variables.attachment()?)
            .map(|()| Vec::new()),
        Command::Check => plugin
            .check(&call, &variables.attachment()?)
            .map(|()| Vec::new()),
        Command::Gc => collect_garbage(plugin, &call).map(|()| Vec::new()),
        Command::Status => plugin.status(&call).map(|()| Vec::new()),
        Command::Version => Ok(version_document(plugin)),
    }))
    .unwrap_or_else(|panic| Err(panicked(&*panic)));
    stderr.append(&mut call.stderr.borrow_mut());
    done
}

/// A harness that sends no list (cnitool) cannot mean that every container of the node is dead.
fn collect_garbage(plugin: &dyn Plugin, call: &Call<'_>) -> Result<(), Failure> {
    match conf::valid_attachments(call.conf())? {
        Some(valid) => plugin.gc(call, &valid),
        None => {
            call.note("GC: no `cni.dev/valid-attachments` was given, so nothing was removed");
            Ok(())
        }
    }
}

fn version_document(plugin: &dyn Plugin) -> Vec<u8> {
    let newest = Version::V1_1_0.as_str();
    let mut document = json::to_compact(&serde_json::json!({
        "cniVersion": newest,
        "supportedVersions": plugin.versions(),
    }));
    document.push(b'\n');
    document
}

fn parse(text: &[u8]) -> Result<Value, Failure> {
    let decoding = |error: String| {
        Failure::new(
            Code::DECODING,
            format!("error unmarshall network config: {error}"),
        )
    };
    let conf = json::parse(text).map_err(|error| decoding(error.to_string()))?;
    Ok(if conf.is_null() {
        Value::Object(serde_json::Map::new())
    } else {
        conf
    })
}

/// The two keys that decide before the plugin looks at the configuration.
#[derive(Default, Deserialize)]
#[serde(default, rename = "NetConf")]
struct Name {
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename = "NetConf")]
struct ConfVersion {
    #[serde(rename = "cniVersion")]
    cni_version: String,
}

fn network_name(conf: &Value) -> Result<NetworkName, Failure> {
    let Name { name } = json::read(conf).map_err(|error| {
        Failure::new(
            Code::DECODING,
            format!("error unmarshall network config: {error}"),
        )
    })?;
    NetworkName::new(&name)
}

fn conf_version(plugin: &dyn Plugin, command: Command, conf: &Value) -> Result<Version, Failure> {
    let ConfVersion { cni_version } = json::read(conf).map_err(|error| {
        Failure::new(
            Code::DECODING,
            format!("decoding version from network config: {error}"),
        )
    })?;
    let supported = plugin.versions();
    match command {
        Command::Add | Command::Del | Command::Version => {
            version::require_supported(&cni_version, supported)?
        }
        Command::Check => {
            version::require_at_least(Version::V0_4_0, "CHECK", &cni_version, supported)?
        }
        Command::Gc => version::require_at_least(Version::V1_1_0, "GC", &cni_version, supported)?,
        Command::Status => {
            version::require_at_least(Version::V1_1_0, "STATUS", &cni_version, supported)?
        }
    }
    Version::parse(&cni_version)
        .ok_or_else(|| Failure::new(Code::INCOMPATIBLE_VERSION, "incompatible CNI versions"))
}

const OWN_NETNS_ON_DEL: &str =
    "DEL: CNI_NETNS is the node's own network namespace, so no interface was looked for\n";

/// Code 8 if the namespace is the one this process is in: nothing good can come of attaching a node to itself.
///
/// The reference looks only after the work is done, and prints its result and this error both.
fn refuse_own_netns(environment: &Environment, netns: &str) -> Result<(), Failure> {
    if !is_own_netns(environment, netns)? {
        return Ok(());
    }
    let msg = "plugin's netns and netns from CNI_NETNS should not be the same";
    Err(Failure::new(Code::INVALID_NETNS, msg).with_details(format!(
        "`{netns}` is the node's own network namespace; nothing was changed"
    )))
}

/// Is the path the namespace that this process is in, and is that not asked for?
fn is_own_netns(environment: &Environment, netns: &str) -> Result<bool, Failure> {
    if environment.netns_is_foreign || environment.netns_override() || netns.is_empty() {
        return Ok(false);
    }
    let Ok(theirs) = fs::metadata(netns) else {
        return Ok(false);
    };
    let own = fs::metadata(Path::new("/proc/self/ns/net")).map_err(|error| {
        Failure::new(Code::INVALID_NETNS, "get plugin's netns failed").with_details(os_text(&error))
    })?;
    Ok((own.dev(), own.ino()) == (theirs.dev(), theirs.ino()))
}

fn panicked(panic: &(dyn Any + Send)) -> Failure {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    Failure::new(Code::INTERNAL, format!("internal error: {text}"))
        .with_details("this is a bug of the plugin; what it had begun was undone")
}

#[cfg(test)]
mod tests;
