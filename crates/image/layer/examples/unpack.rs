//! Unpacks layers, each into a directory of its own, and prints how long it took: `unpack <target> <parallel> <layer>...`.
#![allow(clippy::unwrap_used, reason = "a measuring tool")]

use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Instant;

use corten_layer::{ApplyOptions, apply};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (Some(target), Some(parallel)) = (arguments.next().map(PathBuf::from), arguments.next()) else {
        eprintln!("usage: unpack <target> <parallel> <layer>...");
        return;
    };
    let layers: Vec<_> = arguments.enumerate().collect();
    let queue = Mutex::new(layers.iter());
    let started = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..parallel.parse().unwrap() {
            scope.spawn(|| {
                loop {
                    let Some((index, path)) = queue.lock().unwrap().next() else { return };
                    let directory = target.join(index.to_string());
                    fs::create_dir_all(&directory).unwrap();
                    let begun = Instant::now();
                    let applied =
                        apply(File::open(path).unwrap(), &directory, &ApplyOptions::default()).unwrap();
                    let mib = applied.bytes >> 20;
                    println!("{path}: {} entries, {mib} MiB in {:.2?}", applied.entries, begun.elapsed());
                }
            });
        }
    });
    println!("all in {:.2?}", started.elapsed());
}
