//! POSIX extended regular expressions: the C library's regcomp(3).

use std::{ffi::CStr, fmt, mem::MaybeUninit};

/// A compiled expression.
pub struct Regex(Box<libc::regex_t>);

impl fmt::Debug for Regex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Regex")
    }
}

impl Regex {
    /// Compiles `pattern`.
    ///
    /// # Errors
    /// What is wrong with it, in the C library's words.
    pub fn new(pattern: &CStr) -> Result<Self, String> {
        let mut compiled = Box::new(MaybeUninit::<libc::regex_t>::zeroed());
        // SAFETY: compiled has room for a regex_t that stays where it is; pattern is a NUL-terminated string.
        let code = unsafe {
            libc::regcomp(compiled.as_mut_ptr(), pattern.as_ptr(), libc::REG_EXTENDED | libc::REG_NOSUB)
        };
        if code == 0 {
            // SAFETY: regcomp has filled it.
            return Ok(Self(unsafe { compiled.assume_init() }));
        }
        let mut text = [0_u8; 256];
        // SAFETY: regerror takes what regcomp left of its failure, and writes at most the length of text, with a NUL.
        unsafe { libc::regerror(code, compiled.as_ptr(), text.as_mut_ptr().cast(), text.len()) };
        let text = CStr::from_bytes_until_nul(&text).unwrap_or_default();
        Err(text.to_string_lossy().into_owned())
    }

    /// Whether it matches a part of `text`.
    #[must_use]
    pub fn is_match(&self, text: &CStr) -> bool {
        // SAFETY: the expression is compiled, text is NUL-terminated, and no matches are asked for.
        unsafe { libc::regexec(&raw const *self.0, text.as_ptr(), 0, std::ptr::null_mut(), 0) == 0 }
    }
}

impl Drop for Regex {
    fn drop(&mut self) {
        // SAFETY: the expression is compiled, and not used any more.
        unsafe { libc::regfree(&raw mut *self.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_match() {
        let regex = Regex::new(c"^web-[0-9]+$|db").expect("an expression");
        for (text, matches) in [(c"web-12", true), (c"web-", false), (c"my-db-1", true), (c"", false)] {
            assert_eq!(regex.is_match(text), matches, "{text:?}");
        }
    }

    #[test]
    fn nonsense_is_told() {
        let said = Regex::new(c"web-[").expect_err("it isn't closed");
        assert!(!said.is_empty() && !said.contains('\0'), "{said:?}");
    }
}
