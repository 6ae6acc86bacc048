//! The files that the containers of a pod share: host name, name resolution, `/dev/shm`.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use corten_cri_api::v1::DnsConfig;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::{Error, Result};

/// Makes a directory, and those above it, that others may pass through but not list: pods with user namespaces must
/// get to their root file systems.
pub(crate) fn make_dir(path: &Path) -> Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o711).create(path).map_err(Error::io("make the directory", path))
}

/// Writes a file that everybody may read.
pub(crate) fn write(path: &Path, content: &str) -> Result<()> {
    fs::write(path, content).map_err(Error::io("write", path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).map_err(Error::io("set the mode of", path))
}

/// What the pod's resolv.conf says; the host's own where the request says nothing.
pub(crate) fn resolv_conf(dns: Option<&DnsConfig>) -> Result<String> {
    let empty =
        |dns: &&DnsConfig| !dns.servers.is_empty() || !dns.searches.is_empty() || !dns.options.is_empty();
    let Some(dns) = dns.filter(empty) else {
        let host = Path::new("/etc/resolv.conf");
        return match fs::read_to_string(host) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
            read => read.map_err(Error::io("read", host)),
        };
    };
    let mut text = String::new();
    if !dns.searches.is_empty() {
        text.push_str(&format!("search {}\n", dns.searches.join(" ")));
    }
    for server in &dns.servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !dns.options.is_empty() {
        text.push_str(&format!("options {}\n", dns.options.join(" ")));
    }
    if text.lines().count() > dns.servers.len() + 2 {
        return Err(Error::invalid("dns_config: a line break in a value"));
    }
    Ok(text)
}

/// What the pod's hosts file says where the client brings none.
pub(crate) fn hosts(hostname: &str, ips: &[IpAddr]) -> String {
    let mut text = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n".to_owned();
    for ip in ips {
        text.push_str(&format!("{ip}\t{hostname}\n"));
    }
    text
}

/// Mounts the pod's shared memory.
pub(crate) fn mount_shm(path: &Path) -> Result<()> {
    make_dir(path)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | MsFlags::MS_NODEV;
    mount(Some("shm"), path, Some("tmpfs"), flags, Some("mode=1777,size=65536k"))
        .map_err(|error| Error::io("mount the pod's shared memory at", path)(error.into()))
}

/// Takes down all that is mounted there; nothing is no error.
pub(crate) fn unmount(path: &Path) -> Result<()> {
    loop {
        match umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            Err(nix::Error::EINVAL | nix::Error::ENOENT) => return Ok(()),
            Err(error) => return Err(Error::io("unmount", path)(error.into())),
        }
    }
}

/// Removes a directory and all in it; nothing is no error. Stops at anything still mounted there.
pub(crate) fn remove_dir(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("remove the directory", path)(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_as_asked() {
        let dns = DnsConfig {
            servers: vec!["10.0.0.10".into(), "fd00::10".into()],
            searches: vec!["a.b".into(), "b".into()],
            options: vec!["ndots:5".into()],
        };
        let text = resolv_conf(Some(&dns)).expect("valid");
        assert_eq!(text, "search a.b b\nnameserver 10.0.0.10\nnameserver fd00::10\noptions ndots:5\n");
        let broken = DnsConfig { servers: vec!["1.1.1.1\nnameserver 6.6.6.6".into()], ..dns };
        assert!(resolv_conf(Some(&broken)).is_err());
    }

    #[test]
    fn hosts_knows_the_pod() {
        assert!(hosts("web", &["10.1.0.5".parse().expect("an address")]).ends_with("10.1.0.5\tweb\n"));
    }
}
