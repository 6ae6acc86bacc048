//! Terminals: over a console socket, and the runtime's own.

use anyhow::{Result, ensure};
use integration_support::ConsoleSocket;
use serde_json::json;

use crate::{T, has};

crate::each_runtime!(
    arrives_over_the_console_socket,
    has_the_size_that_is_asked_for,
    is_the_controlling_terminal,
    belongs_to_the_user,
    without_a_console_socket_is_refused,
);

fn socket(t: &T<'_>) -> Result<ConsoleSocket> {
    ConsoleSocket::bind(t.scope.path("tty.sock"))
}

fn create<'a>(
    t: &'a T<'_>,
    bundle: integration_support::Bundle,
    socket: &ConsoleSocket,
) -> Result<(integration_support::Container<'a>, integration_support::Console)> {
    let path = socket.path().to_string_lossy().into_owned();
    let container = t.rt.create(&bundle.write()?, &["--console-socket", &path])?;
    let console = socket.receive()?;
    container.start()?;
    Ok((container, console))
}

fn arrives_over_the_console_socket(t: &T<'_>) -> Result<()> {
    let socket = socket(t)?;
    let (container, mut console) = create(t, t.sh("tty; read line; echo \"<$line>\"").terminal(), &socket)?;
    console.expect("/dev/pts/0")?;
    console.send("hello\n")?;
    console.expect("<hello>")?;
    console.read_to_end()?;
    container.wait_status("stopped")?;
    container.delete(&[])
}

fn has_the_size_that_is_asked_for(t: &T<'_>) -> Result<()> {
    let socket = socket(t)?;
    let bundle =
        t.sh("stty size").terminal().set("/process/consoleSize", json!({"height": 33, "width": 101}));
    let (container, mut console) = create(t, bundle, &socket)?;
    console.expect("33 101")?;
    container.wait_status("stopped")?;
    container.delete(&[])
}

fn is_the_controlling_terminal(t: &T<'_>) -> Result<()> {
    let socket = socket(t)?;
    let bundle =
        t.sh("trap 'echo interrupted; exit 0' INT; echo ready; while true; do sleep 1; done").terminal();
    let (container, mut console) = create(t, bundle, &socket)?;
    console.expect("ready")?;
    console.send("\u{3}")?;
    console.expect("interrupted")?;
    container.wait_status("stopped")?;
    container.delete(&[])
}

fn belongs_to_the_user(t: &T<'_>) -> Result<()> {
    let socket = socket(t)?;
    let bundle = t.sh("stat -c %u:%a /dev/pts/0; ls -l /dev/console; echo x > /dev/tty; echo end").terminal();
    let bundle = bundle.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    let (container, mut console) = create(t, bundle, &socket)?;
    let seen = console.expect("end")?;
    has(seen, "1000:6")?;
    has(seen, "/dev/console")?;
    container.wait_status("stopped")?;
    container.delete(&[])
}

fn without_a_console_socket_is_refused(t: &T<'_>) -> Result<()> {
    if t.differs(integration_support::Kind::Crun, "crun 1.8 creates it all the same") {
        return Ok(());
    }
    let bundle = t.sh("true").terminal().write()?;
    let refused = t.rt.create(&bundle, &[]);
    ensure!(refused.is_err(), "create with a terminal and nobody to give it to");
    Ok(())
}
