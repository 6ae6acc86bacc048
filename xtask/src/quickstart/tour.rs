//! What there is to see: a pod from a real image, and a daemon that dies and comes back under it.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use integration_support::{Daemon, Pushed, wait_for};
use serde_json::Value;

use super::client::Client;
use super::stages::Stages;

/// Counts for ever, a line each 20 ms: a gap in its log would show.
const COUNTER: &str = "i=0; while :; do i=$((i+1)); echo line $i; usleep 20000; done";
const WEB: &str =
    "mkdir -p /www && echo hello from the pod > /www/index.html && exec httpd -f -v -p 8080 -h /www";

/// Shows everything; stops at what fails.
pub(super) fn tour(stages: &mut Stages, client: &Client, daemon: &mut Daemon, image: &Pushed) -> Result<()> {
    let reference = image.reference.as_str();
    stages.run("pull the image", || client.show(&["pull", reference]))?;
    stages.run("make a pod on a CNI bridge", || {
        let logs = client.logs();
        client.show(&["pod", "create", "--name", "demo", "--log-dir", &logs])
    })?;
    stages.run("run two containers in it", || {
        client.show(&["run", "-d", "--pod", "demo", "--name", "counter", reference, "sh", "-c", COUNTER])?;
        client.show(&["run", "-d", "--pod", "demo", "--name", "web", reference, "sh", "-c", WEB])
    })?;
    stages.run("run a command in one of them", || {
        client.show(&["exec", "counter", "sh", "-c", "hostname; id; ps"])?;
        client.show(&["ps"])
    })?;
    stages.run("reach one from the other over localhost", || {
        let fetch = ["exec", "counter", "wget", "-qO-", "http://127.0.0.1:8080/"];
        wait_for("the web server to listen", || client.run(&fetch).is_ok())?;
        client.show(&fetch)
    })?;
    let address = stages.run("reach it from the host over the pod's address", || reach(client))?;
    stages.run("print their logs", || {
        client.show(&["logs", "--tail", "3", "counter"])?;
        client.show(&["logs", "--timestamps", "web"])
    })?;
    stages.run("kill cortend with SIGKILL, and start it again", || survive(client, daemon, address))
}

fn reach(client: &Client) -> Result<IpAddr> {
    let pod = client.json(&["inspect", "demo"])?;
    let address = find_ip(&pod).with_context(|| format!("the pod has no address: {pod}"))?;
    println!("  http://{address}:8080/ says: {}", get(address)?);
    Ok(address)
}

/// The first `ip` in a document.
fn find_ip(value: &Value) -> Option<IpAddr> {
    match value {
        Value::Object(map) => {
            let own = map.get("ip").and_then(Value::as_str).and_then(|ip| ip.parse().ok());
            own.or_else(|| map.values().find_map(find_ip))
        }
        Value::Array(items) => items.iter().find_map(find_ip),
        _ => None,
    }
}

fn get(address: IpAddr) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&(address, 8080).into(), Duration::from_secs(5))
        .with_context(|| format!("can't reach the pod at {address}"))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, body) =
        answer.split_once("\r\n\r\n").with_context(|| format!("not an HTTP answer: {answer:?}"))?;
    ensure!(body.contains("hello from the pod"), "the web server said {body:?}");
    Ok(body.trim().to_owned())
}

/// The containers run on without a daemon, and their logs have no gap.
fn survive(client: &Client, daemon: &mut Daemon, address: IpAddr) -> Result<()> {
    let status = client.json(&["inspect", "counter"])?;
    let log =
        status.pointer("/0/status/logPath").and_then(Value::as_str).context("the counter has no log")?;
    let lines = || std::fs::read_to_string(log).map_or(0, |text| text.lines().count());
    daemon.kill()?;
    println!("  cortend is dead; http://{address}:8080/ says: {}", get(address)?);
    let at_death = lines();
    wait_for("the counter to write on without a daemon", || lines() >= at_death + 10)?;
    daemon.restart()?;
    let at_return = lines();
    wait_for("the counter to write on with the new daemon", || lines() >= at_return + 10)?;
    println!(
        "  cortend is back; the counter wrote line {at_death} to {at_return} meanwhile, is at {} now, no line missing",
        counted(client)?
    );
    client.show(&["ps"])
}

/// How far the counter has come, if no line is missing.
fn counted(client: &Client) -> Result<usize> {
    let log = client.run(&["logs", "counter"])?;
    let mut last = 0;
    for line in log.lines() {
        let number = line.strip_prefix("line ").and_then(|number| number.parse::<usize>().ok());
        match number {
            Some(number) if number == last + 1 => last = number,
            _ => bail!("the log has {line:?} after line {last}"),
        }
    }
    ensure!(last > 0, "the log is empty");
    Ok(last)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::find_ip;

    #[test]
    fn the_address_is_found_wherever_it_is() {
        let document = json!([{"status": {"network": {"additionalIps": [], "ip": "10.1.2.3"}}}]);
        assert_eq!(find_ip(&document), Some("10.1.2.3".parse().expect("an address")));
        assert_eq!(find_ip(&json!({"ip": ""})), None);
    }
}
