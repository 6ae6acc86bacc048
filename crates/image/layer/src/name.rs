//! Names in archives: what they mean, and which ones are refused.

/// Longest path that the kernel takes, without its NUL.
const PATH_MAX: usize = 4095;
/// Longest component of a path on every file system that holds images.
const NAME_MAX: usize = 255;

/// The components of `raw` joined by single slashes, without `.`, with `..` taken lexically as Go's `path.Clean` does,
/// relative to the layer's root: `/a/./b/../c` is `a/c`. The root is the empty name.
///
/// # Errors
///
/// The reason why the name can't be used: it climbs out of the root, is too long, or isn't a path at all.
pub(crate) fn clean(raw: &[u8], depth: usize) -> Result<Vec<u8>, &'static str> {
    if raw.contains(&0) {
        return Err("its name holds a NUL");
    }
    let mut components: Vec<&[u8]> = Vec::new();
    for component in raw.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => {
                if components.pop().is_none() {
                    return Err("its path climbs out of the layer with ..");
                }
            }
            _ if component.len() > NAME_MAX => {
                return Err("a component of its path is longer than 255 bytes");
            }
            _ => components.push(component),
        }
    }
    if components.len() > depth {
        return Err("its path has too many components");
    }
    let path = components.join(&b'/');
    if path.len() > PATH_MAX {
        return Err("its path is longer than 4095 bytes");
    }
    Ok(path)
}

/// A clean name's directory and last component.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

/// A name as people read it.
pub(crate) fn show(name: &[u8]) -> String {
    const SHOWN: usize = 300;
    let mut text = String::from_utf8_lossy(&name[..name.len().min(SHOWN)]).into_owned();
    if name.len() > SHOWN {
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cleaned_as_the_peers_do() {
        for (raw, cleaned) in [
            ("a", "a"),
            ("./a/", "a"),
            ("/a//b/./c", "a/b/c"),
            ("a/../b", "b"),
            ("a/b/../../c", "c"),
            ("./", ""),
            ("", ""),
            ("...", "..."),
        ] {
            assert_eq!(clean(raw.as_bytes(), 100), Ok(cleaned.as_bytes().to_vec()), "{raw}");
        }
    }

    #[test]
    fn names_that_climb_out_are_refused() {
        for raw in ["..", "../a", "/../a", "a/../../b", "./.."] {
            assert!(clean(raw.as_bytes(), 100).is_err(), "{raw}");
        }
    }

    #[test]
    fn names_that_no_kernel_takes_are_refused() {
        assert!(clean(b"a\0b", 100).is_err());
        assert!(clean(&[b'a'; 256], 100).is_err());
        assert!(clean(b"a/b/c", 2).is_err());
        assert!(clean(&b"abcdefgh/".repeat(500), 1000).is_err());
    }

    #[test]
    fn split_takes_the_last_component() {
        assert_eq!(split(b"a/b/c"), (&b"a/b"[..], &b"c"[..]));
        assert_eq!(split(b"c"), (&b""[..], &b"c"[..]));
    }
}
