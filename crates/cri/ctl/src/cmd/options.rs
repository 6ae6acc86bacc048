//! Option values as people know them from `docker run`.

use std::{fs::File, io::Read, path::Path};

use anyhow::{Context, Result, bail};
use corten_cri_api::v1::{Int64Value, KeyValue, Mount, PortMapping, Protocol};

/// `[ADDRESS:]HOST:POD[/PROTOCOL]`.
pub(crate) fn port(text: &str) -> Result<PortMapping> {
    let wrong = || format!("--publish {text:?} is not [ADDRESS:]HOST:POD[/PROTOCOL]");
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        _ => bail!("{}: the protocol is tcp, udp or sctp", wrong()),
    };
    let (host, pod) = ports.rsplit_once(':').with_context(wrong)?;
    let (address, host) = host.rsplit_once(':').unwrap_or(("", host));
    let address = address.trim_start_matches('[').trim_end_matches(']');
    if !address.is_empty() {
        address.parse::<std::net::IpAddr>().with_context(wrong)?;
    }
    let number = |port: &str| match port.parse::<u16>() {
        Ok(0) | Err(_) => bail!("{}: {port:?} is not a port", wrong()),
        Ok(port) => Ok(i32::from(port)),
    };
    Ok(PortMapping {
        protocol: protocol.into(),
        container_port: number(pod)?,
        host_port: number(host)?,
        host_ip: address.to_owned(),
    })
}

/// `SOURCE:TARGET[:ro|:rw]`; a relative source is taken from the working directory.
pub(crate) fn volume(text: &str) -> Result<Mount> {
    let mut parts = text.split(':');
    let (source, target) = parts.next().zip(parts.next()).with_context(|| {
        format!("--volume {text:?} is not SOURCE:TARGET[:ro] (volumes without a source directory don't exist here)")
    })?;
    if !target.starts_with('/') {
        bail!("--volume {text:?}: the target {target:?} is not an absolute path");
    }
    if !source.contains('/') && source != "." && source != ".." {
        bail!("--volume {text:?}: named volumes don't exist here, write ./{source} for a directory");
    }
    let mut readonly = false;
    for option in parts.flat_map(|options| options.split(',')) {
        match option {
            "ro" => readonly = true,
            "rw" => readonly = false,
            other => bail!("--volume {text:?}: the option {other:?} is neither ro nor rw"),
        }
    }
    let host = std::fs::canonicalize(source).with_context(|| format!("--volume {text:?}: {source}"))?;
    let host_path = host.to_str().with_context(|| format!("{} is not UTF-8", host.display()))?;
    Ok(Mount {
        container_path: target.to_owned(),
        host_path: host_path.to_owned(),
        readonly,
        ..Mount::default()
    })
}

/// `NAME=VALUE`, or `NAME` for the value it has in our environment (none if it has none there).
pub(crate) fn env(text: &str) -> Result<Option<KeyValue>> {
    let (key, value) = match text.split_once('=') {
        Some((key, value)) => (key, Some(value.to_owned())),
        None => (text, std::env::var(text).ok()),
    };
    if key.is_empty() {
        bail!("--env {text:?} has no name");
    }
    Ok(value.map(|value| KeyValue { key: key.to_owned(), value: value.into_bytes() }))
}

/// `NAME=VALUE`.
pub(crate) fn pair(option: &str, text: &str) -> Result<(String, String)> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    if key.is_empty() {
        bail!("{option} {text:?} has no name");
    }
    Ok((key.to_owned(), value.to_owned()))
}

/// Bytes with a unit: `512m`, `1.5g`, `64MiB`. Units are binary, as Docker's.
pub(crate) fn memory(text: &str) -> Result<i64> {
    let wrong = || format!("--memory {text:?} is not a number of bytes such as 512m or 1g");
    let lower = text.to_ascii_lowercase();
    let digits = lower.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(lower.len());
    let (number, unit) = lower.split_at(digits);
    let factor: u64 = match unit {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        _ => bail!(wrong()),
    };
    let number: f64 = number.parse().with_context(wrong)?;
    #[expect(clippy::cast_precision_loss, reason = "factors are powers of two")]
    let bytes = number * factor as f64;
    if !(bytes.is_finite() && (1.0..9.0e18).contains(&bytes)) {
        bail!(wrong());
    }
    #[expect(clippy::cast_possible_truncation, reason = "its range was checked")]
    Ok(bytes as i64)
}

/// Number of CPUs as a CFS quota of a period of 100 ms.
pub(crate) fn cpu_quota(text: &str) -> Result<i64> {
    let wrong = || format!("--cpus {text:?} is not a number of CPUs such as 0.5 or 2");
    let cpus: f64 = text.parse().with_context(wrong)?;
    // The kernel's least quota is 1 ms.
    if !(cpus.is_finite() && (0.01..=10_000.0).contains(&cpus)) {
        bail!(wrong());
    }
    #[expect(clippy::cast_possible_truncation, reason = "its range was checked")]
    Ok((cpus * 100_000.0).round() as i64)
}

/// The user that a container runs as.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct User {
    pub(crate) uid: Option<Int64Value>,
    pub(crate) name: String,
    pub(crate) gid: Option<Int64Value>,
}

/// `UID[:GID]` or `NAME[:GID]`.
pub(crate) fn user(text: &str) -> Result<User> {
    let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    if user.is_empty() {
        bail!("--user {text:?} has no user");
    }
    let gid = match group.map(str::parse::<u32>) {
        None => None,
        Some(Ok(gid)) => Some(Int64Value { value: gid.into() }),
        Some(Err(_)) => bail!("--user {text:?}: the group must be a number"),
    };
    Ok(match user.parse::<u32>() {
        Ok(uid) => User { uid: Some(Int64Value { value: uid.into() }), name: String::new(), gid },
        Err(_) => User { uid: None, name: user.to_owned(), gid },
    })
}

/// A name for what nobody has named: the image's, and four random digits.
pub(crate) fn name_for(image: &str) -> Result<String> {
    let last = Path::new(image).file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let base: String = last.split(['@', ':']).next().unwrap_or_default().to_ascii_lowercase();
    let base: String = base.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(40).collect();
    let base = if base.is_empty() { "pod" } else { base.as_str() };
    Ok(format!("{base}-{}", hex(&random::<2>()?)))
}

/// A random UID for a pod.
pub(crate) fn uid() -> Result<String> {
    Ok(hex(&random::<16>()?))
}

fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .context("read /dev/urandom")?;
    Ok(bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports() {
        let mapping = port("127.0.0.1:8080:80/udp").expect("all parts");
        assert_eq!((mapping.host_port, mapping.container_port), (8080, 80));
        assert_eq!((mapping.protocol(), mapping.host_ip.as_str()), (Protocol::Udp, "127.0.0.1"));
        assert_eq!(port("[::1]:1:2").expect("IPv6").host_ip, "::1");
        assert_eq!(port("1:2").expect("short").host_ip, "");
        for wrong in ["80", "0:80", "80:x", "80:80/icmp", "host:80:80", "80:70000"] {
            let error = port(wrong).expect_err(wrong).to_string();
            assert!(error.contains(wrong), "{error}");
        }
    }

    #[test]
    fn volumes() {
        let mount = volume("/usr/../tmp:/data:ro").expect("absolute");
        assert_eq!(
            (mount.host_path.as_str(), mount.container_path.as_str(), mount.readonly),
            ("/tmp", "/data", true)
        );
        assert!(!volume(".:/data").expect("relative").readonly);
        for wrong in ["/tmp", "data:/data", "/tmp:data", "/tmp:/d:z", "/no/such:/d"] {
            assert!(volume(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn quantities() {
        assert_eq!(memory("64").expect("bytes"), 64);
        assert_eq!(memory("512m").expect("m"), 512 << 20);
        assert_eq!(memory("1.5GiB").expect("g"), 3 << 29);
        assert_eq!(cpu_quota("1.5").expect("cpus"), 150_000);
        for wrong in ["", "m", "-1", "1x", "nan", "1e30"] {
            assert!(memory(wrong).is_err(), "{wrong}");
            assert!(cpu_quota(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn users_environment_and_names() {
        assert_eq!(user("1000:50").expect("ids").gid, Some(Int64Value { value: 50 }));
        assert_eq!(user("www").expect("name").name, "www");
        assert!(user(":1").is_err() && user("a:b").is_err());
        assert_eq!(env("A=b=c").expect("pair").expect("value").value, b"b=c");
        assert_eq!(env("CORTEN_NO_SUCH_VARIABLE").expect("name"), None);
        assert!(env("=x").is_err());
        let name = name_for("registry:5000/team/App:v1").expect("name");
        assert!(name.starts_with("app-") && name.len() == 8, "{name}");
        assert_eq!(uid().expect("uid").len(), 32);
    }
}
