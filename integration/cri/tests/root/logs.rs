//! The CRI log files that the shim writes.

use anyhow::{Result, ensure};
use integration_cri::{Node, v1};

#[test]
fn lines_streams_and_times() -> Result<()> {
    Node::test("loglines", |node| {
        let image = node.busybox()?;
        let (pod, config) = node.pod("one")?;
        let id = node.run(&pod, &config, "c", &image.reference, &["workload", "log", "1000", "both"])?;
        node.wait_exited(&id)?;
        let lines = node.wait_log(&id, "error line 1000")?;
        for (stream, prefix) in [("stdout", "line "), ("stderr", "error line ")] {
            let of: Vec<_> = lines.iter().filter(|line| line.stream == stream).collect();
            ensure!(of.len() == 1000, "{} lines of {stream}", of.len());
            for (n, line) in of.iter().enumerate() {
                ensure!(line.whole && line.text == format!("{prefix}{}", n + 1), "{line:?}");
            }
            ensure!(
                of.windows(2).all(|pair| matches!(pair, [a, b] if a.time <= b.time)),
                "time runs backwards"
            );
        }
        node.remove_pod(&pod)
    })
}

#[test]
fn long_and_unfinished_lines() -> Result<()> {
    Node::test("loglong", |node| {
        let image = node.busybox()?;
        let (pod, config) = node.pod("one")?;
        let id = node.run(&pod, &config, "long", &image.reference, &["workload", "long-line", "100000"])?;
        node.wait_exited(&id)?;
        integration_support::wait_for("the whole line", || {
            node.log(&id).is_ok_and(|lines| lines.last().is_some_and(|line| line.whole))
        })?;
        let lines = node.log(&id)?;
        ensure!(
            lines.len() > 1 && lines.iter().rev().skip(1).all(|line| !line.whole),
            "{} lines",
            lines.len()
        );
        let text: String = lines.iter().map(|line| line.text.as_str()).collect();
        ensure!(text == "x".repeat(100_000), "{} bytes came through", text.len());
        let id =
            node.run(&pod, &config, "partial", &image.reference, &["workload", "partial", "no newline"])?;
        node.wait_exited(&id)?;
        node.wait_log(&id, "no newline")?;
        node.remove_pod(&pod)
    })
}

#[test]
fn rotation() -> Result<()> {
    Node::test("rotation", |node| {
        let image = node.busybox()?;
        let (pod, config) = node.pod("one")?;
        let id =
            node.run(&pod, &config, "c", &image.reference, &["workload", "log", "100000", "stdout", "10"])?;
        node.wait_log(&id, "line 5")?;
        let path = node.status(&id)?.log_path;
        let old = format!("{path}.old");
        std::fs::rename(&path, &old)?;
        node.cri.reopen_container_log(v1::ReopenContainerLogRequest { container_id: id.clone() })?;
        integration_support::wait_for("lines in the new file", || {
            node.log(&id).is_ok_and(|lines| lines.len() > 3)
        })?;
        node.stop_container(&id, 0)?;
        let number = |line: &str| line.rsplit(' ').next().and_then(|word| word.parse::<u64>().ok());
        let mut numbers: Vec<_> = std::fs::read_to_string(&old)?.lines().filter_map(number).collect();
        numbers.extend(std::fs::read_to_string(&path)?.lines().filter_map(number));
        ensure!(
            numbers.windows(2).all(|pair| matches!(pair, [a, b] if a + 1 == *b)),
            "a line was lost: {numbers:?}"
        );
        node.remove_pod(&pod)
    })
}
