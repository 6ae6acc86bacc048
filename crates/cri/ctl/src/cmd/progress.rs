//! Pulls an image and shows how it goes.

use std::collections::HashMap;

use anyhow::{Result, bail};
use corten_cri_api::{
    corten::{PullPhase, PullProgress, PullRequest},
    v1::{AuthConfig, ImageSpec, PullImageRequest},
};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::json;
use tokio_stream::StreamExt;
use tonic::Code;

use crate::{
    client::{Answer, Client, say},
    show::{print, short, size},
};

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// A bar for each blob, on a terminal.
    Bars,
    /// A line when a blob enters another phase, on standard error.
    Lines,
    /// A JSON object for each message, on standard output.
    Json,
    /// Not at all.
    Quiet,
}

/// User and password at a registry.
#[derive(Clone)]
pub(crate) struct Credentials {
    pub(crate) username: String,
    pub(crate) password: String,
}

/// Pulls and returns the image's id.
pub(crate) async fn pull(
    client: &Client,
    image: &str,
    auth: Option<Credentials>,
    mode: Mode,
) -> Result<String> {
    let what = || format!("pull {image}");
    let (username, password) = auth.clone().map(|auth| (auth.username, auth.password)).unwrap_or_default();
    let request = PullRequest { reference: image.to_owned(), username, password };
    let mut messages = match client.pulls().pull(request).await {
        Ok(answer) => answer.into_inner(),
        Err(status) if status.code() == Code::Unimplemented => return plain(client, image, auth).await,
        Err(status) => return Err(say(&status, &what())),
    };
    let mut view = View::new(mode);
    while let Some(message) = messages.next().await {
        let message = match message {
            Ok(message) => message,
            Err(status) => {
                view.clear();
                return Err(say(&status, &what()));
            }
        };
        view.show(image, &message)?;
        if message.phase() == PullPhase::Complete {
            return Ok(message.image_id);
        }
    }
    view.clear();
    bail!("can't {}: cortend ended the pull without a result", what())
}

/// The pull of a daemon that speaks CRI only.
async fn plain(client: &Client, image: &str, auth: Option<Credentials>) -> Result<String> {
    let request = PullImageRequest {
        image: Some(ImageSpec { image: image.to_owned(), ..ImageSpec::default() }),
        auth: auth.map(|auth| AuthConfig {
            username: auth.username,
            password: auth.password,
            ..AuthConfig::default()
        }),
        sandbox_config: None,
    };
    let answer = client.images().pull_image(request).await;
    Ok(answer.or_say(|| format!("pull {image}"))?.image_ref)
}

/// What is on the screen.
struct View {
    mode: Mode,
    bars: MultiProgress,
    blobs: HashMap<String, (PullPhase, ProgressBar)>,
}

impl View {
    fn new(mode: Mode) -> Self {
        Self { mode, bars: MultiProgress::new(), blobs: HashMap::new() }
    }

    fn show(&mut self, image: &str, message: &PullProgress) -> Result<()> {
        match self.mode {
            Mode::Quiet => Ok(()),
            Mode::Json => print(&format!("{}\n", as_json(message))),
            Mode::Lines => {
                self.line(image, message);
                Ok(())
            }
            Mode::Bars => {
                self.bar(image, message);
                Ok(())
            }
        }
    }

    /// Leaves the screen to an error message.
    fn clear(&self) {
        if self.mode == Mode::Bars {
            self.bars.clear().ok(); // because the error that follows matters more
        }
    }

    /// The blob's bar, and whether it has just entered its phase.
    fn enter(&mut self, message: &PullProgress) -> (ProgressBar, bool) {
        let phase = message.phase();
        let (last, bar) = self.blobs.entry(message.digest.clone()).or_insert_with(|| {
            if self.mode != Mode::Bars {
                return (PullPhase::Unspecified, ProgressBar::hidden());
            }
            // The style first: a bar is drawn as soon as it's added.
            let bar = ProgressBar::new(message.total).with_style(still_style());
            (PullPhase::Unspecified, self.bars.add(bar))
        });
        let entered = *last != phase;
        *last = phase;
        (bar.clone(), entered)
    }

    fn line(&mut self, image: &str, message: &PullProgress) {
        let (_, entered) = self.enter(message);
        if !entered {
            return;
        }
        let total = if message.total > 0 { format!(" ({})", size(message.total)) } else { String::new() };
        match message.phase() {
            PullPhase::Complete => eprintln!("{image}: complete, image {}", short(&message.image_id)),
            phase if message.digest.is_empty() => eprintln!("{image}: {}", name(phase)),
            phase => eprintln!("{}: {}{total}", short(&message.digest), name(phase)),
        }
    }

    fn bar(&mut self, image: &str, message: &PullProgress) {
        let phase = message.phase();
        if phase == PullPhase::Complete {
            for (digest, (_, bar)) in &self.blobs {
                if !bar.is_finished() {
                    bar.set_style(still_style());
                    bar.abandon_with_message(if digest.is_empty() { "complete" } else { "done" });
                }
            }
            return;
        }
        let (bar, entered) = self.enter(message);
        let label = if message.digest.is_empty() { image.to_owned() } else { short(&message.digest) };
        if entered {
            let moving = matches!(phase, PullPhase::Downloading | PullPhase::Unpacking) && message.total > 0;
            bar.set_style(if moving { moving_style() } else { still_style() });
            bar.set_prefix(label);
            bar.set_message(name(phase));
        }
        if message.total > 0 {
            bar.set_length(message.total);
            bar.set_position(message.current.min(message.total));
        }
        if matches!(phase, PullPhase::Done | PullPhase::Exists) {
            let total = if message.total > 0 { format!("  {}", size(message.total)) } else { String::new() };
            bar.finish_with_message(format!("{}{total}", name(phase)));
        }
    }
}

fn moving_style() -> ProgressStyle {
    let template = "{prefix:12}  {msg:11} [{bar:30}] {decimal_bytes:>10}/{decimal_total_bytes:<10} {decimal_bytes_per_sec}";
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

fn still_style() -> ProgressStyle {
    ProgressStyle::with_template("{prefix:12}  {msg}").unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// A phase in a word.
fn name(phase: PullPhase) -> &'static str {
    match phase {
        PullPhase::Unspecified => "",
        PullPhase::Resolving => "resolving",
        PullPhase::Waiting => "waiting",
        PullPhase::Downloading => "downloading",
        PullPhase::Unpacking => "unpacking",
        PullPhase::Done => "done",
        PullPhase::Exists => "exists",
        PullPhase::Complete => "complete",
    }
}

fn as_json(message: &PullProgress) -> serde_json::Value {
    let mut value = json!({"phase": name(message.phase())});
    if !message.digest.is_empty() {
        value["digest"] = message.digest.clone().into();
        value["current"] = message.current.into();
        value["total"] = message.total.into();
    }
    if !message.image_id.is_empty() {
        value["imageId"] = message.image_id.clone().into();
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_as_json_have_what_they_are_about() {
        let mut message =
            PullProgress { digest: "sha256:ab".into(), current: 1, total: 2, ..PullProgress::default() };
        message.set_phase(PullPhase::Downloading);
        assert_eq!(
            as_json(&message),
            json!({"phase": "downloading", "digest": "sha256:ab", "current": 1, "total": 2})
        );
        let mut message = PullProgress { image_id: "sha256:cd".into(), ..PullProgress::default() };
        message.set_phase(PullPhase::Complete);
        assert_eq!(as_json(&message), json!({"phase": "complete", "imageId": "sha256:cd"}));
    }

    #[test]
    fn a_phase_is_entered_once() {
        let mut view = View::new(Mode::Lines);
        let mut message = PullProgress { digest: "sha256:ab".into(), ..PullProgress::default() };
        message.set_phase(PullPhase::Downloading);
        assert!(view.enter(&message).1);
        assert!(!view.enter(&message).1);
        message.set_phase(PullPhase::Done);
        assert!(view.enter(&message).1);
    }

    #[test]
    fn the_templates_are_valid() {
        ProgressStyle::with_template(
            "{prefix:12}  {msg:11} [{bar:30}] {decimal_bytes:>10}/{decimal_total_bytes:<10} {decimal_bytes_per_sec}",
        )
        .expect("moving");
        ProgressStyle::with_template("{prefix:12}  {msg}").expect("still");
    }
}
