//! The profile's rules, sorted by system call.

use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall,
};

use crate::{
    Error, action,
    condition::Rule,
    table::{SYSCALLS, X86},
};

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

/// The rules of one architecture, by number.
#[derive(Debug)]
pub(crate) struct Decisions<'a> {
    pub(crate) entries: Vec<(u32, std::borrow::Cow<'a, Entry>)>,
    /// The newest system call that the profile names.
    pub(crate) newest: Option<u32>,
}

/// The first name that isn't known, and its rule's index.
pub(crate) fn unknown(profile: &LinuxSeccomp) -> Option<(usize, &str)> {
    let rules = profile.syscalls().as_deref().unwrap_or_default().iter().enumerate();
    let mut names =
        rules.flat_map(|(index, rule)| rule.names().iter().map(move |name| (index, name.as_str())));
    names.find(|(_, name)| SYSCALLS.binary_search_by_key(name, |(known, _)| known).is_err())
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
        for name in syscall.names() {
            if notify && name == "write" {
                return Err(Error::Notify { at: at() });
            }
            let Ok(known) = SYSCALLS.binary_search_by_key(&name.as_str(), |(name, _)| name) else {
                warnings.push(format!("unknown system call {name:?}"));
                continue;
            };
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

    /// The rules as one architecture numbers them, ascending.
    pub(crate) fn decisions(&self, column: usize) -> Decisions<'_> {
        use std::borrow::Cow;
        let mut decisions = Decisions { entries: Vec::with_capacity(SYSCALLS.len()), newest: None };
        for ((_, numbers), entry) in SYSCALLS.iter().zip(&self.entries) {
            let Ok(number) = u32::try_from(numbers[column]) else { continue };
            if entry.named {
                decisions.newest = decisions.newest.max(Some(number));
            }
            if entry.always.is_some() || !entry.rules.is_empty() {
                decisions.entries.push((number, Cow::Borrowed(entry)));
            }
        }
        if column == X86 {
            self.multiplexed(&mut decisions);
        }
        decisions.entries.sort_unstable_by_key(|(number, _)| *number);
        decisions
    }

    /// What is decided for `socket` holds for `socketcall` with the code of `socket` too. Where it depends on arguments those
    /// are behind a pointer there, which a filter can't follow: then it's the stricter answer, the default's of an allow
    /// list, the rule's of a deny list, or that could be got round.
    fn multiplexed<'a>(&'a self, decisions: &mut Decisions<'a>) {
        for (through, first, names) in MULTIPLEXED {
            let Ok(through) = SYSCALLS.binary_search_by_key(through, |(name, _)| name) else { continue };
            let mut rules = Vec::new();
            for (code, name) in (u64::from(*first)..).zip(*names) {
                let entry =
                    SYSCALLS.binary_search_by_key(name, |(name, _)| name).map(|index| &self.entries[index]);
                let Ok(entry) = entry else { continue };
                let denied =
                    || entry.rules.iter().map(|rule| rule.action).find(|action| !lets_through(*action));
                let denied = || (!self.enosys).then(denied).flatten();
                if let Some(action) = entry.always.or_else(denied) {
                    rules.push(Rule { conditions: vec![equals(0, code)], action });
                }
            }
            let number = u32::from(SYSCALLS[through].1[X86].unsigned_abs());
            if self.entries[through].always.is_some() || rules.is_empty() {
                continue;
            }
            match decisions.entries.iter_mut().find(|(known, _)| *known == number) {
                Some((_, entry)) => entry.to_mut().rules.extend(rules),
                None => {
                    let entry = Entry { rules, ..Entry::default() };
                    decisions.entries.push((number, std::borrow::Cow::Owned(entry)));
                }
            }
            decisions.newest = decisions.newest.max(Some(number));
        }
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
