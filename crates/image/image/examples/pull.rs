//! Pulls an image into a directory: `pull <root> <reference>`. What an embedder needs to write, and what benchmarks run.

use std::time::Instant;

use corten_image::{Config, Images, Phase, Progress, PullOptions};
use tokio::sync::watch;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(root), Some(reference)) = (arguments.next(), arguments.next()) else {
        return Err("usage: pull <root> <reference>".into());
    };
    let images = Images::open(Config::new(root)).await?;
    let (sender, mut progress) = watch::channel(Progress::default());
    let shown = tokio::spawn(async move {
        while progress.changed().await.is_ok() {
            let layers = progress.borrow_and_update().layers.clone();
            let done =
                layers.iter().filter(|l| matches!(l.phase, Phase::Done | Phase::AlreadyExists)).count();
            let bytes: u64 = layers.iter().map(|layer| layer.extracted).sum();
            eprint!("\r{done} of {} layers, {} MiB unpacked ", layers.len(), bytes >> 20);
        }
    });
    let start = Instant::now();
    let image =
        images.pull(&reference, PullOptions { progress: Some(sender), ..PullOptions::default() }).await?;
    let pulled = start.elapsed();
    shown.await?;
    eprintln!("\n{} pulled in {pulled:.2?}", image.id);
    if arguments.next().as_deref() == Some("--remove") {
        let start = Instant::now();
        images.remove(&image.id).await?;
        eprintln!("removed in {:.2?}", start.elapsed());
    }
    Ok(())
}
