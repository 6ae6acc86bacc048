//! The profile's rules, sorted by system call.

use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall,
};

use crate::{Error, action, condition::Rule, table::SYSCALLS};

/// The system calls that i386 has a second way to: the call to get them through, and their code there.
const MULTIPLEXED: &[(&str, u16, &[&str])] = &[
    (
        "socketcall",
        1,
        &[
            "socket",
            "bind",
            "connect",
            "listen",
            "accept",
            "getsockname",
            "getpeername",
            "socketpair",
            "send",
            "recv",
            "sendto",
            "recvfrom",
            "shutdown",
            "setsockopt",
            "getsockopt",
            "sendmsg",
            "recvmsg",
            "accept4",
            "recvmmsg",
            "sendmmsg",
        ],
    ),
    ("ipc", 1, &["semop", "semget", "semctl", "semtimedop"]),
    ("ipc", 11, &["msgsnd", "msgrcv", "msgget", "msgctl"]),
    ("ipc", 21, &["shmat", "shmdt", "shmget", "shmctl"]),
];

/// What is decided for one system call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Whatever the arguments.
    pub(crate) always: Option<u32>,
    /// By arguments.
    pub(crate) rules: Vec<Rule>,
    /// The profile names it.
    named: bool,
}

/// The whole profile.
#[derive(Debug)]
pub(crate) struct Rules {
    /// By index into [`SYSCALLS`].
    entries: Vec<Entry>,
    pub(crate) default: u32,
    /// Whether system calls newer than the profile fail with ENOSYS rather than by the default.
    pub(crate) enosys: bool,
    pub(crate) notify: bool,
}

/// The rules of one architecture.
#[derive(Debug)]
pub(crate) struct Decisions<'a> {
    /// By number; None is the default's, as all from the end on.
    pub(crate) entries: Vec<Option<&'a Entry>>,
    /// The newest system call that the profile names.
    pub(crate) newest: Option<u32>,
}

/// The first name that isn't known, and its rule's index.
pub(crate) fn unknown(profile: &LinuxSeccomp) -> Option<(usize, &str)> {
    let rules = profile.syscalls().as_deref().unwrap_or_default().iter().enumerate();
    let mut names =
        rules.flat_map(|(index, rule)| rule.names().iter().map(move |name| (index, name.as_str())));
    names.find(|(_, name)| find(name, 0).is_none())
}

impl Rules {
    pub(crate) fn read(profile: &LinuxSeccomp, warnings: &mut Vec<String>) -> Result<Self, Error> {
        if profile.default_action() == LinuxSeccompAction::ScmpActNotify {
            return Err(Error::Notify { at: ".defaultAction".to_owned() });
        }
        let at = || ".defaultErrnoRet".to_owned();
        let default = action::value(profile.default_action(), profile.default_errno_ret(), at)?;
        let enosys = !matches!(
            profile.default_action(),
            LinuxSeccompAction::ScmpActAllow | LinuxSeccompAction::ScmpActLog
        );
        let mut rules =
            Self { entries: vec![Entry::default(); SYSCALLS.len()], default, enosys, notify: false };
        for (index, syscall) in profile.syscalls().iter().flatten().enumerate() {
            rules.add(index, syscall, warnings)?;
        }
        rules.multiplexed();
        Ok(rules)
    }

    fn add(&mut self, index: usize, syscall: &LinuxSyscall, warnings: &mut Vec<String>) -> Result<(), Error> {
        let at = || format!(".syscalls[{index}]");
        let action = action::value(syscall.action(), syscall.errno_ret(), at)?;
        let args = syscall.args().as_deref().unwrap_or_default();
        if let Some((arg, wrong)) = args.iter().enumerate().find(|(_, arg)| arg.index() > 5) {
            return Err(Error::Argument { rule: index, arg, index: wrong.index() });
        }
        let notify = syscall.action() == LinuxSeccompAction::ScmpActNotify;
        let alternatives = alternatives(args, action);
        let mut next = 0;
        for name in syscall.names() {
            if notify && name == "write" {
                return Err(Error::Notify { at: at() });
            }
            let Some(known) = find(name, next) else {
                warnings.push(format!("unknown system call {name:?}"));
                continue;
            };
            next = known + 1;
            let entry = &mut self.entries[known];
            entry.named = true;
            if action == self.default {
                continue;
            }
            self.notify |= notify;
            if args.is_empty() {
                entry.always.get_or_insert(action);
            } else {
                entry.rules.extend_from_slice(&alternatives);
            }
        }
        Ok(())
    }

    /// The rules as one architecture numbers them.
    pub(crate) fn decisions(&self, column: usize) -> Decisions<'_> {
        let mut decisions = Decisions { entries: Vec::with_capacity(SYSCALLS.len()), newest: None };
        for (number, entry) in self.numbered(column) {
            if entry.named {
                decisions.newest = decisions.newest.max(Some(number));
            }
            if entry.always.is_some() || !entry.rules.is_empty() {
                let index = number as usize;
                if index >= decisions.entries.len() {
                    decisions.entries.resize(index + 1, None);
                }
                decisions.entries[index] = Some(entry);
            }
        }
        decisions
    }

    /// The newest system call of an architecture that the profile names.
    pub(crate) fn newest(&self, column: usize) -> Option<u32> {
        self.numbered(column).filter(|(_, entry)| entry.named).map(|(number, _)| number).max()
    }

    /// What an architecture has, with its numbers.
    fn numbered(&self, column: usize) -> impl Iterator<Item = (u32, &Entry)> {
        let all = SYSCALLS.iter().zip(&self.entries);
        all.filter_map(move |((_, numbers), entry)| Some((u32::try_from(numbers[column]).ok()?, entry)))
    }

    /// What is decided for `socket` holds for `socketcall` (which only i386 has) with the code of `socket` too. Where it depends on
    /// arguments those are behind a pointer there, which a filter can't follow: then it's the stricter answer, the default's of an
    /// allow list, the rule's of a deny list, or that could be got round.
    fn multiplexed(&mut self) {
        for (through, first, names) in MULTIPLEXED {
            let Some(through) = find(through, 0) else { continue };
            let mut rules = Vec::new();
            for (code, name) in (u64::from(*first)..).zip(*names) {
                let Some(entry) = find(name, 0).map(|index| &self.entries[index]) else { continue };
                let denied =
                    || entry.rules.iter().map(|rule| rule.action).find(|action| !lets_through(*action));
                let denied = || (!self.enosys).then(denied).flatten();
                if let Some(action) = entry.always.or_else(denied) {
                    rules.push(Rule { conditions: vec![equals(0, code)], action });
                }
            }
            let entry = &mut self.entries[through];
            if entry.always.is_none() && !rules.is_empty() {
                entry.named = true;
                entry.rules.extend(rules);
            }
        }
    }
}

/// The index of a name in [`SYSCALLS`]. Profiles are mostly in alphabetical order: then it's at `likely` or a few further.
fn find(name: &str, likely: usize) -> Option<usize> {
    let near = SYSCALLS.iter().enumerate().skip(likely).take(3).find(|(_, (known, _))| *known == name);
    match near {
        Some((index, _)) => Some(index),
        None => SYSCALLS.binary_search_by_key(&name, |(known, _)| known).ok(),
    }
}

fn lets_through(action: u32) -> bool {
    [action::ALLOW, action::LOG].contains(&action)
}

/// One rule; or one per condition if two are about the same argument.
fn alternatives(args: &[LinuxSeccompArg], action: u32) -> Vec<Rule> {
    let repeated =
        args.iter().enumerate().any(|(i, arg)| args[..i].iter().any(|other| other.index() == arg.index()));
    if repeated {
        return args.iter().map(|arg| Rule { conditions: vec![*arg], action }).collect();
    }
    vec![Rule { conditions: args.to_vec(), action }]
}

fn equals(index: usize, value: u64) -> LinuxSeccompArg {
    oci_spec::runtime::LinuxSeccompArgBuilder::default()
        .index(index)
        .value(value)
        .op(LinuxSeccompOperator::ScmpCmpEq)
        .build()
        .expect("all fields that have no default are set")
}
