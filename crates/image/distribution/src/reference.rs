//! Image names: `[registry/]repository[:tag][@digest]`, and what a short name stands for.

use std::fmt;
use std::str::FromStr;

use crate::Digest;

/// A full image name. Short forms are completed when parsed: `busybox` is `docker.io/library/busybox:latest`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Text that isn't an image name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid image name {name:?}: {reason}")]
pub struct InvalidReference {
    name: String,
    reason: String,
}

const DEFAULT_REGISTRY: &str = "docker.io";
const MAX_NAME: usize = 255;
const MAX_TAG: usize = 128;

impl Reference {
    /// Parses a name and completes it: registry `docker.io`, there the repository's `library/`, and the tag `latest` unless there is a
    /// tag or a digest.
    ///
    /// # Errors
    /// When the text isn't an image name; a bare digest (64 hex digits) isn't one either.
    pub fn parse(text: &str) -> Result<Reference, InvalidReference> {
        let invalid = |reason: &str| InvalidReference {
            name: text.chars().take(300).collect(),
            reason: reason.to_owned(),
        };
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => {
                (name, Some(digest.parse::<Digest>().map_err(|e| invalid(&e.to_string()))?))
            }
            None => (text, None),
        };
        let (path, tag) = split_tag(name);
        if let Some(tag) = tag.filter(|tag| !is_tag(tag)) {
            return Err(invalid(&format!("{tag:?} is not a tag")));
        }
        if path.len() == 64 && path.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(invalid("64 hex digits look like an image id"));
        }
        let (registry, repository) = complete(path);
        if !is_host(&registry) {
            return Err(invalid(&format!("{registry:?} is not a registry's host")));
        }
        if path.is_empty() {
            return Err(invalid("it has no repository"));
        }
        if let Some(bad) = repository.split('/').find(|component| !is_component(component)) {
            return Err(invalid(&if bad.bytes().any(|b| b.is_ascii_uppercase()) {
                format!("{bad:?} in the repository must be lower case")
            } else {
                format!("{bad:?} can't be a part of a repository")
            }));
        }
        if registry.len() + 1 + repository.len() > MAX_NAME {
            return Err(invalid("it is longer than 255 characters"));
        }
        let tag = tag.map(str::to_owned).or_else(|| digest.is_none().then(|| "latest".to_owned()));
        Ok(Reference { registry, repository, tag, digest })
    }

    /// The registry's host, with its port if it has one.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository at the registry.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest. When there is one it decides, whatever the tag says.
    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// `registry/repository`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// `registry/repository:tag`, if there is a tag.
    #[must_use]
    pub fn tagged(&self) -> Option<String> {
        self.tag.as_ref().map(|tag| format!("{}:{tag}", self.name()))
    }

    /// The same repository's content of this digest, without a tag.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Reference {
        Reference { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// What manifests are asked for by: the digest, else the tag.
    pub(crate) fn target(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".to_owned(),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Reference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Reference, InvalidReference> {
        Reference::parse(text)
    }
}

/// A colon behind the last slash begins the tag; one before it is a port.
fn split_tag(name: &str) -> (&str, Option<&str>) {
    match name.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
        _ => (name, None),
    }
}

/// Registry and repository of a path. The first component is a registry only if it looks like a host, or is `localhost`.
fn complete(path: &str) -> (String, String) {
    let host = path.split_once('/').filter(|(first, _)| {
        first.contains(['.', ':'])
            || *first == "localhost"
            || first.starts_with('[')
            || first.bytes().any(|b| b.is_ascii_uppercase())
    });
    let (registry, repository) = host.unwrap_or((DEFAULT_REGISTRY, path));
    let registry = match registry {
        "index.docker.io" | "registry-1.docker.io" => DEFAULT_REGISTRY,
        other => other,
    };
    let library = registry == DEFAULT_REGISTRY && !repository.contains('/');
    let prefix = if library { "library/" } else { "" };
    (registry.to_owned(), format!("{prefix}{repository}"))
}

fn is_tag(tag: &str) -> bool {
    let mut bytes = tag.bytes();
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= MAX_TAG
        && bytes.next().is_some_and(word)
        && bytes.all(|b| word(b) || matches!(b, b'.' | b'-'))
}

/// A host name or address with an optional port.
fn is_host(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) => {
            if address.is_empty() || !address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':') {
                return false;
            }
            return rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port);
        }
        None => host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port))),
    };
    port.is_none_or(is_port)
        && name.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        })
}

fn is_port(port: &str) -> bool {
    !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok()
}

/// Lower-case words joined by one `.`, one or two `_`, or any number of `-`.
fn is_component(component: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let ends = bytes.first().zip(bytes.last()).is_some_and(|(a, z)| word(*a) && word(*z));
    ends && component
        .split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        .all(|separator| matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn short_names_are_completed() {
        for (short, full) in [
            ("busybox", "docker.io/library/busybox:latest"),
            ("busybox:1.36", "docker.io/library/busybox:1.36"),
            ("me/app", "docker.io/me/app:latest"),
            ("docker.io/busybox", "docker.io/library/busybox:latest"),
            ("index.docker.io/busybox", "docker.io/library/busybox:latest"),
            ("localhost/x", "localhost/x:latest"),
            ("localhost:5000/x", "localhost:5000/x:latest"),
            ("localhost:5000/a/b/c:v1.0-rc_1", "localhost:5000/a/b/c:v1.0-rc_1"),
            ("127.0.0.1:5000/x:y", "127.0.0.1:5000/x:y"),
            ("[::1]:5000/x", "[::1]:5000/x:latest"),
            ("registry.k8s.io/pause:3.9", "registry.k8s.io/pause:3.9"),
            ("a__b/c-d---e.f", "docker.io/a__b/c-d---e.f:latest"),
            ("localhost:5000", "docker.io/library/localhost:5000"),
        ] {
            let parsed = Reference::parse(short).unwrap_or_else(|e| panic!("{short}: {e}"));
            assert_eq!(parsed.to_string(), full, "{short}");
            assert_eq!(Reference::parse(full).unwrap(), parsed, "{full} isn't stable");
        }
    }

    #[test]
    fn digests_replace_or_join_the_tag() {
        let bare = Reference::parse(&format!("busybox@{SHA}")).unwrap();
        assert_eq!(bare.to_string(), format!("docker.io/library/busybox@{SHA}"));
        assert_eq!((bare.tag(), bare.target()), (None, SHA.to_owned()));
        let both = Reference::parse(&format!("r.example:1/b:v1@{SHA}")).unwrap();
        assert_eq!(both.to_string(), format!("r.example:1/b:v1@{SHA}"));
        assert_eq!(both.target(), SHA);
        assert_eq!(both.tagged().unwrap(), "r.example:1/b:v1");
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let hex = "a".repeat(64);
        let long = format!("x/{}", "a/".repeat(130) + "a");
        let long_tag = format!("x:{}", "a".repeat(129));
        let bad = [
            "",
            ":tag",
            "x:",
            "x:-tag",
            "UPPER",
            "r.example/Upper",
            "x//y",
            "x/",
            "/x",
            "a___b",
            "a..b",
            "-a",
            "a-",
            "x y",
            "x@sha256:12",
            "x@",
            "x@md5:aa",
            "r.example:port/x",
            "r.example:99999/x",
            "-r.example/x",
            "r..example/x",
            "[::1/x",
            "[zz]:1/x",
            "x:tag:tag",
            "../x",
            "x/../y",
            "x\0y",
            &hex,
            &long,
            &long_tag,
        ];
        for name in bad {
            assert!(Reference::parse(name).is_err(), "{name:?} was accepted");
        }
    }

    #[test]
    fn the_reason_is_told() {
        let error = Reference::parse("r.example/Upper").unwrap_err().to_string();
        assert!(error.contains("\"Upper\"") && error.contains("lower case"), "{error}");
    }
}
