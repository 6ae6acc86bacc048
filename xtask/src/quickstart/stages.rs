//! What is going on, and how long it took.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::Interrupts;

/// The stages so far.
#[derive(Debug)]
pub(crate) struct Stages {
    done: Vec<(&'static str, Duration, bool)>,
    interrupts: Interrupts,
}

impl Stages {
    pub(super) fn new(interrupts: Interrupts) -> Self {
        Self { done: Vec::new(), interrupts }
    }

    /// What each stage took.
    pub(super) fn milliseconds(&self) -> Vec<String> {
        self.done.iter().map(|(_, time, _)| time.as_millis().to_string()).collect()
    }

    /// Takes over stages that another process has been through, with what [`Stages::milliseconds`] said there.
    pub(super) fn resume(&mut self, names: &[&'static str], milliseconds: &str) {
        let times = milliseconds.split(',').filter_map(|text| text.parse().ok()).map(Duration::from_millis);
        self.done.extend(names.iter().copied().zip(times).map(|(name, time)| (name, time, true)));
    }

    /// Runs a stage, unless the user has interrupted.
    pub(super) fn run<T>(&mut self, what: &'static str, stage: impl FnOnce() -> Result<T>) -> Result<T> {
        self.interrupts.check()?;
        self.always(what, stage)
    }

    /// Runs a stage that has to be, interrupted or not.
    pub(super) fn always<T>(&mut self, what: &'static str, stage: impl FnOnce() -> Result<T>) -> Result<T> {
        println!("\n== {what}");
        let started = Instant::now();
        let result = stage().with_context(|| format!("failed to {what}"));
        self.done.push((what, started.elapsed(), result.is_ok()));
        if let Err(error) = &result {
            println!("   {error:#}");
        }
        result
    }

    /// Prints how long each stage took.
    pub(super) fn print(&self) {
        let width = self.done.iter().map(|(what, ..)| what.chars().count()).max().unwrap_or(0);
        println!("\n{:<width$}  {:>9}", "stage", "ms");
        for (what, time, ok) in &self.done {
            println!(
                "{what:<width$}  {:>9.1}{}",
                time.as_secs_f64() * 1e3,
                if *ok { "" } else { "  failed" }
            );
        }
    }
}
