//! One question of the exam.

use serde_json::Value;
use tests::Release;
use tests::cni::with;

/// A configuration, what it meets, and what is done with it.
#[derive(Clone)]
pub(super) struct Case {
    pub(super) name: String,
    pub(super) plugin: &'static str,
    /// Of both pods. `@` stands for the end of the addresses of the one that is meant, and the second's ports of the node
    /// are its own.
    pub(super) conf: Value,
    /// Variables besides what a runtime sets, or instead of it.
    pub(super) env: Vec<(&'static str, &'static str)>,
    /// Commands that prepare the node.
    pub(super) before: Vec<&'static str>,
    /// The pods wait for duplicate address detection, as they do on a real node.
    pub(super) patient: bool,
    /// The kernel has to filter VLANs.
    pub(super) vlans: bool,
    /// With which releases ours is compared.
    pub(super) releases: &'static [Release],
    pub(super) steps: &'static [Step],
}

/// A verb for one of two pods.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    Add(Which),
    /// ADD once more, after the pod came to another address.
    Move(Which),
    /// With the last result that ADD printed for it.
    Check(Which),
    Del(Which),
    /// DEL without `CNI_NETNS`.
    DelWithoutNetns(Which),
    /// DEL after the namespace and all in it are gone.
    DelGone(Which),
    /// What a runtime asks from 1.1.0 on, of no pod: STATUS, and GC that keeps both.
    Status,
    Gc,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    One,
    Two,
}

use Step::{Add, Check, Del, DelGone, DelWithoutNetns, Gc, Move, Status};
use Which::{One, Two};

/// The life of two pods, with all that a runtime repeats, forgets and does too late.
const LIFE: &[Step] = &[
    Add(One),
    Add(Two),
    Check(One),
    Add(One),
    Del(One),
    Del(One),
    Check(One),
    Add(One),
    DelWithoutNetns(One),
    DelGone(Two),
];

/// The life of two pods that does not end with their namespace, one of which comes to another address.
const MOVING: &[Step] = &[
    Add(One),
    Add(Two),
    Check(One),
    Add(One),
    Check(One),
    Move(One),
    Check(One),
    Del(One),
    Del(One),
    Check(One),
    Del(Two),
];

/// The same with the verbs that are about no pod.
const MANAGED: &[Step] = &[
    Status,
    Gc,
    Add(One),
    Add(Two),
    Status,
    Gc,
    Check(One),
    Del(One),
    Del(Two),
    Gc,
];

/// No more than each verb once.
const BRIEF: &[Step] = &[Add(One), Check(One), Del(One)];

impl Step {
    fn which(self) -> Which {
        match self {
            Add(which) | Move(which) | Check(which) | Del(which) => which,
            DelWithoutNetns(which) | DelGone(which) => which,
            Status | Gc => One,
        }
    }
}

impl Case {
    pub(super) fn new(name: &str, plugin: &'static str, conf: Value) -> Case {
        let version = conf["cniVersion"].as_str().unwrap_or("no version");
        Case {
            name: format!("{plugin}: {name} ({version})"),
            plugin,
            conf,
            env: Vec::new(),
            before: Vec::new(),
            patient: false,
            vlans: false,
            releases: &Release::ALL,
            steps: LIFE,
        }
    }

    /// The pods that anything is done with.
    pub(super) fn pods(&self) -> impl Iterator<Item = Which> {
        let both = self.steps.iter().any(|it| it.which() == Two);
        [One, Two].into_iter().take(if both { 2 } else { 1 })
    }

    /// The same with `CNI_ARGS`.
    pub(super) fn args(self, args: &'static str) -> Case {
        self.env("CNI_ARGS", args)
    }

    /// The same with another variable; an empty one counts as unset.
    pub(super) fn env(mut self, name: &'static str, value: &'static str) -> Case {
        self.env.push((name, value));
        self
    }

    /// The same on a node where `command` has been run.
    pub(super) fn before(mut self, command: &'static str) -> Case {
        self.before.push(command);
        self
    }

    pub(super) fn patient(mut self) -> Case {
        self.patient = true;
        self
    }

    /// The same where the kernel filters VLANs.
    pub(super) fn vlans(mut self) -> Case {
        self.vlans = true;
        self
    }

    /// The same, but not for 1.1.1, which does not know what this is about.
    pub(super) fn newer(mut self) -> Case {
        self.releases = &[Release::V1_9_1];
        self
    }

    /// The same, the second ADD being for another address.
    pub(super) fn moving(mut self) -> Case {
        self.steps = MOVING;
        self
    }

    /// The same with STATUS, and with GC of nothing.
    pub(super) fn managed(mut self) -> Case {
        self.steps = MANAGED;
        self
    }

    /// The same for one pod and each verb once: where nothing comes of it, or little depends on more.
    pub(super) fn brief(mut self) -> Case {
        self.steps = BRIEF;
        self
    }
}

/// `conf` of a `version`; of none, if that is empty.
pub(super) fn of(version: &str, conf: &Value) -> Value {
    let mut conf = with(conf, "cniVersion", version.into());
    if version.is_empty() {
        conf.as_object_mut().unwrap().remove("cniVersion");
    }
    conf
}
