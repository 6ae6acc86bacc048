//! File systems whose options are too long for fsconfig(2), made by mount(2) instead.

use std::{
    ffi::{CStr, CString},
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use corten_sys::mount::Attributes;
use nix::{
    libc,
    mount::MsFlags,
    unistd::{SysconfVar, sysconf},
};

use super::mount::{is_default, show};
use crate::{Result, error::Doing, plan::FsOption};

/// What mount(2) is asked for.
pub(super) struct Wanted<'a> {
    pub(super) name: &'a CStr,
    pub(super) source: &'a CStr,
    pub(super) options: &'a [FsOption],
    /// Added to the options.
    pub(super) mode: Option<&'a CStr>,
    /// The SELinux context, added to the options.
    pub(super) label: Option<&'a CStr>,
    /// The attributes of the mount, which it has from the beginning.
    pub(super) set: Attributes,
}

/// Mounts it on `target`, which is called `destination`.
pub(super) fn mount(target: &OwnedFd, destination: &CStr, wanted: &Wanted<'_>) -> Result<()> {
    let doing = || format!("mount {} on {}", show(wanted.name), show(destination));
    let (flags, data) = split(wanted);
    let page = sysconf(SysconfVar::PAGE_SIZE).doing(doing)?.and_then(|size| usize::try_from(size).ok());
    fits(data.len(), page.unwrap_or(4096)).doing(doing)?;
    let data = CString::new(data).map_err(io::Error::from).doing(doing)?;
    let place = format!("/proc/self/fd/{}", target.as_raw_fd());
    let flags = flags | attributes(wanted.set);
    nix::mount::mount(Some(wanted.source), place.as_str(), Some(wanted.name), flags, Some(data.as_c_str()))
        .doing(doing)
}

/// The kernel takes one page with the NUL at its end, and cuts what is longer without a word: of an overlay whose upperdir
/// comes last a read-only one would be left.
fn fits(length: usize, page: usize) -> io::Result<()> {
    let limit = page.saturating_sub(1);
    if length <= limit {
        return Ok(());
    }
    let text = format!(
        "its options have {length} bytes in all, and the kernel takes {limit}: use fewer of them, or shorter paths"
    );
    Err(io::Error::new(io::ErrorKind::InvalidInput, text))
}

/// The options as flags and words.
fn split(wanted: &Wanted<'_>) -> (MsFlags, Vec<u8>) {
    let mut flags = MsFlags::empty();
    let mut words: Vec<Vec<u8>> = Vec::new();
    for option in wanted.options {
        match (&option.value, flag(&option.key)) {
            (None, Some(flag)) => flags |= flag,
            (None, None) if is_default(option) => {}
            (value, _) => words.push(word(&option.key, value.as_deref())),
        }
    }
    words.extend(wanted.mode.map(|mode| word(c"mode", Some(mode))));
    words.extend(wanted.label.map(|label| word(c"context", Some(label))));
    (flags, words.join(&b','))
}

/// What isn't a word for mount(2).
fn flag(key: &CStr) -> Option<MsFlags> {
    Some(match key.to_bytes() {
        b"sync" => MsFlags::MS_SYNCHRONOUS,
        b"dirsync" => MsFlags::MS_DIRSYNC,
        b"mand" => MsFlags::MS_MANDLOCK,
        b"lazytime" => MsFlags::MS_LAZYTIME,
        b"iversion" => MsFlags::MS_I_VERSION,
        _ => return None,
    })
}

/// SELinux contexts may have commas (between the categories of MCS): it wants those in quotes.
fn word(key: &CStr, value: Option<&CStr>) -> Vec<u8> {
    let (key, Some(value)) = (key.to_bytes(), value.map(CStr::to_bytes)) else {
        return key.to_bytes().to_vec();
    };
    let context = matches!(key, b"context" | b"fscontext" | b"defcontext" | b"rootcontext");
    let quote: &[u8] = if context && !value.starts_with(b"\"") { b"\"" } else { b"" };
    [key, b"=", quote, value, quote].concat()
}

/// The same attributes as mount(2) numbers them.
fn attributes(set: Attributes) -> MsFlags {
    let pairs = [
        (Attributes::RDONLY, MsFlags::MS_RDONLY),
        (Attributes::NOSUID, MsFlags::MS_NOSUID),
        (Attributes::NODEV, MsFlags::MS_NODEV),
        (Attributes::NOEXEC, MsFlags::MS_NOEXEC),
        (Attributes::NOATIME, MsFlags::MS_NOATIME),
        (Attributes::STRICTATIME, MsFlags::MS_STRICTATIME),
        (Attributes::NODIRATIME, MsFlags::MS_NODIRATIME),
        (Attributes::NOSYMFOLLOW, MsFlags::from_bits_retain(libc::MS_NOSYMFOLLOW)),
    ];
    pairs.into_iter().filter(|(attribute, _)| set.contains(*attribute)).map(|(_, flag)| flag).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn option(key: &CStr, value: Option<&CStr>) -> FsOption {
        FsOption { key: key.to_owned(), value: value.map(CStr::to_owned) }
    }

    fn split_of(options: &[FsOption], label: Option<&CStr>) -> (MsFlags, String) {
        let (name, source, set) = (c"overlay", c"overlay", Attributes::empty());
        let (flags, data) = split(&Wanted { name, source, options, mode: None, label, set });
        (flags, String::from_utf8(data).expect("UTF-8"))
    }

    #[test]
    fn one_page_and_no_more() {
        fits(4095, 4096).expect("with the NUL it is a page");
        let error = fits(4096, 4096).expect_err("the NUL is on the next page").to_string();
        assert!(error.contains("4096 bytes") && error.contains("takes 4095"), "{error}");
    }

    #[test]
    fn flags_are_no_words() {
        let options = [
            option(c"lowerdir", Some(c"/a:/b")),
            option(c"iversion", None),
            option(c"async", None),
            option(c"sync", None),
            option(c"index", Some(c"off")),
            option(c"volatile", None),
        ];
        let (flags, data) = split_of(&options, None);
        assert_eq!(flags, MsFlags::MS_I_VERSION | MsFlags::MS_SYNCHRONOUS);
        assert_eq!(data, "lowerdir=/a:/b,index=off,volatile");
    }

    #[test]
    fn contexts_are_quoted() {
        let options = [
            option(c"fscontext", Some(c"\"a:b:c:s0:c1,c2\"")),
            option(c"defcontext", Some(c"a:b:c:s0:c3,c4")),
            option(c"lowerdir", Some(c"/a")),
        ];
        let (_, data) = split_of(&options, Some(c"system_u:object_r:container_file_t:s0:c5,c6"));
        let expected = "fscontext=\"a:b:c:s0:c1,c2\",defcontext=\"a:b:c:s0:c3,c4\",lowerdir=/a,\
                        context=\"system_u:object_r:container_file_t:s0:c5,c6\"";
        assert_eq!(data, expected);
    }

    #[test]
    fn attributes_are_given_with_the_mount() {
        let set = Attributes::RDONLY | Attributes::NOSUID | Attributes::NOSYMFOLLOW | Attributes::NODIRATIME;
        let expected = libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NOSYMFOLLOW | libc::MS_NODIRATIME;
        assert_eq!(attributes(set).bits(), expected);
    }
}
