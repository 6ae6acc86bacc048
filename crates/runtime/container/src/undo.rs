//! Undo is a value: each step that succeeded registers how to take it back; a failure runs all of them in reverse.

use crate::{Error, error::chain};

type Action<'a> = Box<dyn FnOnce() -> crate::Result<()> + 'a>;

/// How to take back what has been done so far.
#[derive(Default)]
pub(crate) struct Undo<'a>(Vec<(String, Action<'a>)>);

impl<'a> Undo<'a> {
    /// Registers how to take back the step that has just succeeded.
    pub(crate) fn push(&mut self, what: impl Into<String>, action: impl FnOnce() -> crate::Result<()> + 'a) {
        self.0.push((what.into(), Box::new(action)));
    }

    /// Takes everything back, the last first; all of it, whatever fails. Returns the error that led here, with
    /// what couldn't be taken back.
    pub(crate) fn roll_back(self, error: Error) -> Error {
        let mut left = Vec::new();
        for (what, action) in self.0.into_iter().rev() {
            if let Err(e) = action() {
                left.push(format!("{what}: {}", chain(&e)));
            }
        }
        if left.is_empty() { error } else { Error::Undo { error: Box::new(error), left } }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn everything_is_taken_back_in_reverse_whatever_fails() {
        let done = RefCell::new(Vec::new());
        let mut undo = Undo::default();
        undo.push("first", || {
            done.borrow_mut().push(1);
            Ok(())
        });
        undo.push("second", || Err(Error::NotFound { id: "x".to_owned() }));
        undo.push("third", || {
            done.borrow_mut().push(3);
            Ok(())
        });
        let error = undo.roll_back(Error::AlreadyExists { id: "y".to_owned() });
        assert_eq!(*done.borrow(), [3, 1]);
        let Error::Undo { left, .. } = error else { panic!("not an undo error: {error}") };
        assert_eq!(left, ["second: container x does not exist"]);
    }
}
