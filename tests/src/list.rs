//! Runs a network configuration list as libcni does.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::cni::{Call, Outcome, path, with, with_attachments, workspace};
use crate::node::{Node, Pod};

/// A conflist on a node.
pub struct List<'n> {
    node: &'n Node,
    /// The list as its file has it.
    pub conf: Value,
    /// What the runtime supplies for capabilities: `portMappings`, `mac`, …
    pub capability_args: Value,
}

impl<'n> List<'n> {
    /// A list given as JSON.
    pub fn new(node: &'n Node, conf: Value) -> List<'n> {
        List {
            node,
            conf,
            capability_args: Value::Null,
        }
    }

    /// One of the samples in `conf/`, as it is.
    #[track_caller]
    pub fn sample(node: &'n Node, name: &str) -> List<'n> {
        let path = workspace().join("conf").join(name);
        let text =
            fs::read_to_string(&path).unwrap_or_else(|err| panic!("{}: {err}", path.display()));
        List::new(node, serde_json::from_str(&text).unwrap())
    }

    /// The `type` of each plugin.
    pub fn types(&self) -> Vec<String> {
        self.plugins()
            .iter()
            .map(|it| it["type"].as_str().unwrap().to_owned())
            .collect()
    }

    /// ADD, first to last, each with the result before it; what the last one did, or the first that failed.
    #[track_caller]
    pub fn add(&self, pod: &Pod) -> Outcome {
        let mut prev_result = None;
        let mut last = None;
        for plugin in self.plugins() {
            let outcome = self
                .call(&plugin, "ADD", prev_result.as_ref())
                .pod(pod)
                .run();
            if !outcome.status.success() {
                return outcome;
            }
            prev_result = Some(outcome.result());
            last = Some(outcome);
        }
        last.expect("a list has a plugin")
    }

    /// CHECK, first to last, each with the result of the whole ADD.
    #[track_caller]
    pub fn check(&self, pod: &Pod, result: &Value) -> Outcome {
        self.each(self.plugins(), |plugin| {
            self.call(plugin, "CHECK", Some(result)).pod(pod)
        })
    }

    /// DEL, last to first, with the result of ADD from 0.4.0 on.
    #[track_caller]
    pub fn del(&self, pod: &Pod, result: Option<&Value>) -> Outcome {
        self.del_at(pod, &pod.path(), result)
    }

    /// DEL with `netns` as `CNI_NETNS`, whatever is there.
    #[track_caller]
    pub fn del_at(&self, pod: &Pod, netns: &str, result: Option<&Value>) -> Outcome {
        let result =
            result.filter(|_| !matches!(self.version(), "0.1.0" | "0.2.0" | "0.3.0" | "0.3.1"));
        let last_first = self.plugins().into_iter().rev().collect();
        self.each(last_first, |plugin| {
            self.call(plugin, "DEL", result)
                .pod(pod)
                .env("CNI_NETNS", netns)
        })
    }

    /// GC, keeping the attachments of `valid`.
    #[track_caller]
    pub fn gc(&self, valid: &[&Pod]) -> Outcome {
        self.each(self.plugins(), |plugin| {
            self.call(&with_attachments(plugin, valid), "GC", None)
        })
    }

    /// STATUS.
    #[track_caller]
    pub fn status(&self) -> Outcome {
        self.each(self.plugins(), |plugin| self.call(plugin, "STATUS", None))
    }

    /// The list's `cniVersion`.
    pub fn version(&self) -> &str {
        self.conf["cniVersion"].as_str().unwrap_or("0.1.0")
    }

    fn plugins(&self) -> Vec<Value> {
        self.conf["plugins"]
            .as_array()
            .expect("a list has plugins")
            .clone()
    }

    #[track_caller]
    fn each(&self, plugins: Vec<Value>, call: impl Fn(&Value) -> Call<'n>) -> Outcome {
        let mut last = None;
        for plugin in plugins {
            let outcome = call(&plugin).run();
            if !outcome.status.success() {
                return outcome;
            }
            last = Some(outcome);
        }
        last.expect("a list has a plugin")
    }

    /// A call with what libcni puts into a plugin's configuration.
    fn call(&self, plugin: &Value, command: &str, prev_result: Option<&Value>) -> Call<'n> {
        let mut conf = with(plugin, "name", self.conf["name"].clone());
        conf = with(&conf, "cniVersion", self.version().into());
        if let Some(prev_result) = prev_result {
            conf = with(&conf, "prevResult", prev_result.clone());
        }
        if let Some(args) = self.args_for(plugin) {
            conf = with(&conf, "runtimeConfig", args);
        }
        let program = plugin["type"].as_str().expect("a plugin has a type");
        debug_assert!(
            Path::new(&path()).join(program).exists(),
            "{program} is not on CNI_PATH"
        );
        self.node.call(program, command).conf(&conf)
    }

    /// The capability arguments that the plugin says it wants.
    fn args_for(&self, plugin: &Value) -> Option<Value> {
        let capabilities = plugin.get("capabilities")?.as_object()?;
        let wanted = |key: &&String| capabilities.get(*key) == Some(&Value::Bool(true));
        let given = self.capability_args.as_object()?;
        let args: serde_json::Map<_, _> = given
            .keys()
            .filter(wanted)
            .map(|key| (key.clone(), given[key].clone()))
            .collect();
        (!args.is_empty()).then(|| args.into())
    }
}
