//! Moves network devices of ours into the container's network namespace (runtime-spec, config-linux "Network
//! Devices"): they keep their permanent global addresses, get their new names, and are set up.
//!
//! They never come back from a container that has lived: the kernel returns physical ones and destroys virtual
//! ones when the namespace goes. Only a `create` that fails puts them where they were, with their addresses and routes.

use std::{
    fs, io,
    os::fd::{AsFd, OwnedFd},
};

use corten_sys::{
    netlink::{Address, Link, Route, Way},
    process::Namespaces,
};

use crate::{
    Result,
    error::Doing,
    plan::{NetDevice, Plan},
    undo::Undo,
};

/// What is needed to put a device back.
struct Moved {
    before: Link,
    addresses: Vec<Address>,
    ways: Vec<Way>,
    theirs: Route,
    index: u32,
}

/// The network namespace to join, if there are devices to move there.
pub(crate) fn joined(plan: &Plan, joins: &[(Namespaces, OwnedFd)]) -> Result<Option<OwnedFd>> {
    let join = joins.iter().find(|(kind, _)| *kind == Namespaces::NET);
    let join = join.filter(|_| !plan.net_devices.is_empty());
    join.map(|(_, file)| file.try_clone()).transpose().doing(|| "duplicate a descriptor".to_owned())
}

fn own(pid: i32) -> Result<OwnedFd> {
    let path = format!("/proc/{pid}/ns/net");
    fs::File::open(&path).map(OwnedFd::from).doing(|| format!("open {path}"))
}

/// Moves all of them to the namespace that is `joined`, or else that of init, and registers how to move them back.
pub(crate) fn give(
    devices: &[NetDevice],
    joined: Option<OwnedFd>,
    init: i32,
    undo: &mut Undo<'static>,
) -> Result<()> {
    if devices.is_empty() {
        return Ok(());
    }
    let namespace = joined.map_or_else(|| own(init), Ok)?;
    for device in devices {
        let (host, name) = (&device.host, &device.name);
        let doing = || format!("move the network device {host} to the container as {name}");
        let moved = give_one(device, &namespace).doing(doing)?;
        undo.push(format!("take back the network device {host}"), move || {
            let name = moved.before.name.clone();
            take_back(moved).doing(|| format!("take back the network device {name}"))
        });
    }
    Ok(())
}

fn give_one(device: &NetDevice, namespace: &OwnedFd) -> io::Result<Moved> {
    let ours = Route::open()?;
    let theirs = Route::open_in(namespace.as_fd())?;
    let before = find(&ours, &device.host)?
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "there is no such device"))?;
    let there = theirs.links()?;
    // The kernel would move it first and then not be able to name it.
    if there.iter().any(|link| link.name == device.name) {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the name is taken in the container"));
    }
    let (addresses, ways) = (ours.addresses(before.index)?, ours.ways(before.index)?);
    // It isn't set down first: one that can't be moved must stay as it is, and that costs routes and IPv6 addresses.
    let result = match ours.move_to(before.index, &device.name, namespace.as_fd()) {
        Err(e) if ours.links()?.iter().any(|link| link.index == before.index) => return Err(e),
        // If it has failed after all, that was the new name.
        result => result,
    };
    let new = theirs.links()?.into_iter().find(|link| there.iter().all(|old| old.index != link.index));
    let moved = Moved { before, addresses, ways, theirs, index: new.ok_or_else(gone)?.index };
    match result.and_then(|()| settle(&moved)) {
        Ok(()) => Ok(moved),
        Err(e) => {
            take_back(moved).ok(); // because the first failure is the one to tell
            Err(e)
        }
    }
}

/// Makes it usable in the container.
fn settle(moved: &Moved) -> io::Result<()> {
    for address in moved.addresses.iter().filter_map(Address::elsewhere) {
        moved.theirs.add_address(moved.index, &address)?;
    }
    moved.theirs.set_up(moved.index, true)
}

fn take_back(moved: Moved) -> io::Result<()> {
    let Moved { before, addresses, ways, theirs, index } = moved;
    let here = fs::File::open("/proc/thread-self/ns/net")?;
    theirs.move_to(index, &before.name, here.as_fd())?;
    let ours = Route::open()?;
    let back = find(&ours, &before.name)?.ok_or_else(gone)?;
    // Each as far as possible; what the kernel has made again by itself is there.
    let mut result = Ok(());
    let mut also = |one: io::Result<()>| {
        if !matches!(&one, Err(e) if e.kind() == io::ErrorKind::AlreadyExists) && result.is_ok() {
            result = one;
        }
    };
    addresses.iter().for_each(|address| also(ours.add_address(back.index, address)));
    also(ours.set_up(back.index, before.up));
    ways.iter().for_each(|way| also(ours.add_way(back.index, way)));
    result
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "it is gone after the move")
}

fn find(route: &Route, name: &str) -> io::Result<Option<Link>> {
    Ok(route.links()?.into_iter().find(|link| link.name == name))
}
