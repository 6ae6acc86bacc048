//! `linux.netDevices`: devices that move into the container.

use std::process::Command;

use anyhow::{Result, ensure};
use integration_support::{Bundle, run};
use serde_json::{Value, json};

use crate::{T, has, lacks};

crate::each_runtime!(
    a_device_moves_with_its_addresses,
    the_next_free_number,
    into_a_joined_namespace,
    a_name_that_is_taken_is_refused,
    a_failed_create_puts_it_back,
    one_that_cannot_be_moved_stays_as_it_is,
    it_needs_a_namespace_and_a_device,
);

/// One end of a veth pair, or a bridge, with addresses and the state of a device in use; it goes with the value.
struct Device(String);

impl Device {
    fn new(t: &T<'_>) -> Result<Self> {
        let device = Self(t.scope.link("nd"));
        let peer = t.scope.link("np");
        ip(&["link", "add", &device.0, "mtu", "1400", "type", "veth", "peer", "name", &peer])?;
        ip(&["addr", "add", "192.0.2.7/28", "brd", "192.0.2.15", "dev", &device.0])?;
        ip(&["link", "set", &device.0, "up"])?;
        ip(&["link", "set", &peer, "up"])?;
        Ok(device)
    }

    /// One that stays in its namespace.
    fn bridge(t: &T<'_>) -> Result<Self> {
        let device = Self(t.scope.link("nb"));
        ip(&["link", "add", &device.0, "type", "bridge"])?;
        ip(&["addr", "add", "192.0.2.71/28", "dev", &device.0])?;
        ip(&["link", "set", &device.0, "up"])?;
        Ok(device)
    }

    /// Routes and an IPv6 address, that are lost when it is set down.
    fn in_use(&self) -> Result<()> {
        // Other runs of these tests may have the same routes.
        let metric = std::process::id().to_string();
        let to = |net: &str, more: &[&str]| {
            let route = ["route", "append", net, "dev", &self.0, "metric", &metric];
            ip(&[&route, more].concat())
        };
        to("203.0.113.1/32", &["scope", "link"])?;
        to("198.51.100.0/28", &["via", "203.0.113.1"])?;
        if std::path::Path::new("/proc/sys/net/ipv6").is_dir() {
            ip(&["addr", "add", "2001:db8:7::7/64", "dev", &self.0, "nodad"])?;
            to("2001:db8:8::/64", &["via", "2001:db8:7::1"])?;
        }
        Ok(())
    }

    /// Addresses and routes, one a line, without what comes and goes with the state of the link.
    fn state(&self) -> Result<Vec<String>> {
        let mut all = ip(&["-o", "addr", "show", "dev", &self.0])?;
        for family in ["-4", "-6"] {
            all += &ip(&[family, "route", "show", "dev", &self.0])?;
        }
        let known = ["192.0.2.", "203.0.113.", "198.51.100.", "2001:db8:"];
        let ours = all.lines().filter(|line| known.iter().any(|net| line.contains(net)));
        let words = |line: &str| {
            let fixed =
                line.split_whitespace().filter(|word| !["linkdown", "tentative", "dadfailed"].contains(word));
            fixed.collect::<Vec<_>>().join(" ")
        };
        Ok(ours.map(words).collect())
    }

    fn as_config(&self, name: Option<&str>) -> Value {
        json!({&self.0: name.map_or_else(|| json!({}), |name| json!({"name": name}))})
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        Command::new("ip").args(["link", "del", &self.0]).output().ok(); // because the kernel may have done so
    }
}

fn ip(args: &[&str]) -> Result<String> {
    Ok(run(Command::new("ip").args(args))?.ok()?.stdout)
}

fn skipped(t: &T<'_>) -> bool {
    t.too_new_for_peers("linux.netDevices") || !integration_support::require_program("ip")
}

fn a_device_moves_with_its_addresses(t: &T<'_>) -> Result<()> {
    if skipped(t) {
        return Ok(());
    }
    let device = Device::new(t)?;
    let bundle = t
        .sh("ip link show; ip -4 addr show dev moved")
        .set("/linux/netDevices", device.as_config(Some("moved")));
    let out = t.out(bundle)?;
    has(&out, "moved@")?;
    has(&out, "mtu 1400")?;
    has(&out, "UP")?;
    has(&out, "inet 192.0.2.7/28 brd 192.0.2.15")?;
    lacks(&out, &device.0)
}

fn the_next_free_number(t: &T<'_>) -> Result<()> {
    if skipped(t) {
        return Ok(());
    }
    let device = Device::new(t)?;
    let bundle = t.sh("ip -4 addr show dev eth0").set("/linux/netDevices", device.as_config(Some("eth%d")));
    has(&t.out(bundle)?, "inet 192.0.2.7/28")
}

fn into_a_joined_namespace(t: &T<'_>) -> Result<()> {
    if skipped(t) {
        return Ok(());
    }
    let holder = t.start(Bundle::workload(t.scope, "holder", &["sleep"]))?;
    let device = Device::new(t)?;
    let path = std::path::PathBuf::from(format!("/proc/{}/ns/net", holder.pid()?));
    let bundle = t.sh("ip -4 addr").namespace("network", Some(&path));
    let out = t.out(bundle.set("/linux/netDevices", device.as_config(None)))?;
    has(&out, &device.0)?;
    has(&out, "inet 192.0.2.7/28")?;
    holder.delete(&["--force"])
}

fn a_name_that_is_taken_is_refused(t: &T<'_>) -> Result<()> {
    if skipped(t) {
        return Ok(());
    }
    let device = Device::new(t)?;
    let bundle = t.workload(&["exit", "0"]).set("/linux/netDevices", device.as_config(Some("lo")));
    has(&t.refused(bundle)?, "the name is taken in the container")?;
    has(&ip(&["addr", "show", "dev", &device.0])?, "inet 192.0.2.7/28")
}

fn a_failed_create_puts_it_back(t: &T<'_>) -> Result<()> {
    if skipped(t) {
        return Ok(());
    }
    let device = Device::new(t)?;
    ip(&["addr", "add", "169.254.9.7/16", "dev", &device.0, "scope", "link"])?;
    device.in_use()?;
    let before = device.state()?;
    let hook = json!([{"path": "/bin/busybox", "args": ["busybox", "false"]}]);
    let bundle = t.workload(&["exit", "0"]).set("/linux/netDevices", device.as_config(Some("moved")));
    t.refused(bundle.set("/hooks/createRuntime", hook))?;
    let back = ip(&["addr", "show", "dev", &device.0])?;
    has(&back, "inet 192.0.2.7/28")?;
    has(&back, "inet 169.254.9.7/16 scope link")?;
    has(&back, ",UP")?;
    let after = device.state()?;
    ensure!(before == after, "before: {before:#?}\nafter: {after:#?}");
    Ok(())
}

fn one_that_cannot_be_moved_stays_as_it_is(t: &T<'_>) -> Result<()> {
    if skipped(t) {
        return Ok(());
    }
    let bridge = Device::bridge(t)?;
    bridge.in_use()?;
    let before = bridge.state()?;
    let bundle = t.workload(&["exit", "0"]).set("/linux/netDevices", bridge.as_config(Some("moved")));
    has(&t.refused(bundle)?, "move the network device")?;
    let after = bridge.state()?;
    ensure!(before == after && before.len() >= 4, "before: {before:#?}\nafter: {after:#?}");
    has(&ip(&["link", "show", "dev", &bridge.0])?, ",UP")
}

fn it_needs_a_namespace_and_a_device(t: &T<'_>) -> Result<()> {
    if skipped(t) {
        return Ok(());
    }
    let missing = t.scope.link("none");
    let bundle = t.workload(&["exit", "0"]).set("/linux/netDevices", json!({&missing: {}}));
    let said = t.refused(bundle)?;
    ensure!(said.contains(&missing) && said.contains("there is no such device"), "{said}");
    let bundle = Bundle::workload(t.scope, "host", &["exit", "0"]).namespace("network", None);
    has(&t.refused(bundle.set("/linux/netDevices", json!({&missing: {}})))?, "needs a network namespace")
}
