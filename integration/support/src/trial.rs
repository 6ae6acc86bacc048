//! One test on one runtime: what tests that run over corten, runc and crun alike have at hand.

use anyhow::{Result, ensure};

use crate::{Bundle, Container, Finished, Kind, Runtime, Scope, skip};

/// A test's world and the runtime that it is about.
#[derive(Debug)]
pub struct Trial<'a> {
    /// Where everything of the test is.
    pub scope: &'a Scope,
    /// The runtime.
    pub rt: &'a Runtime,
}

impl Trial<'_> {
    /// Runs `test` on the runtime of this kind, in a scope of its own; if that isn't here, the test is skipped aloud.
    pub fn on(kind: Kind, name: &str, test: fn(&Trial<'_>) -> Result<()>) -> Result<()> {
        Scope::test(name, |scope| match Runtime::for_test(kind, scope)? {
            Some(rt) => test(&Trial { scope, rt: &rt }),
            None => Ok(()),
        })
    }

    /// True when this peer knowingly differs; the test then counts as skipped for it.
    #[must_use]
    pub fn differs(&self, kind: Kind, why: &str) -> bool {
        if self.rt.kind() == kind {
            skip(why);
        }
        self.rt.kind() == kind
    }

    /// True for the peers, which are too old in Debian 12 for what the test is about.
    #[must_use]
    pub fn too_new_for_peers(&self, what: &str) -> bool {
        let why = format!("{what} is newer than runc 1.1 and crun 1.8");
        self.differs(Kind::Runc, &why) || self.differs(Kind::Crun, &why)
    }

    /// A bundle with the workload that runs `args`.
    #[must_use]
    pub fn workload(&self, args: &[&str]) -> Bundle {
        Bundle::workload(self.scope, "c", args)
    }

    /// A bundle with busybox that runs a script.
    #[must_use]
    pub fn sh(&self, script: &str) -> Bundle {
        Bundle::sh(self.scope, "c", script)
    }

    /// Writes and runs the bundle, demands success, and yields what it printed.
    pub fn out(&self, bundle: Bundle) -> Result<String> {
        let finished = self.rt.run(&bundle.write()?)?.ok()?;
        Ok(finished.stdout)
    }

    /// Writes the bundle and starts it.
    pub fn start(&self, bundle: Bundle) -> Result<Container<'_>> {
        self.rt.start(&bundle.write()?)
    }

    /// Writes and runs the bundle, demands failure, and yields what was printed on standard error.
    pub fn refused(&self, bundle: Bundle) -> Result<String> {
        let finished = self.rt.run(&bundle.write()?)?.err()?;
        ensure!(!finished.stderr.is_empty(), "{} failed without a word", self.rt.kind().name());
        Ok(finished.stderr)
    }

    /// Runs what has been written, and demands that it is refused with a word about `about`.
    pub fn refused_for(&self, bundle: &Bundle, about: &str) -> Result<Finished> {
        let finished = self.rt.run(bundle)?.err()?;
        ensure!(finished.stderr.contains(about), "expected {about:?} in: {finished:?}");
        Ok(finished)
    }
}
