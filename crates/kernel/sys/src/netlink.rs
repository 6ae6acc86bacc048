//! As much of rtnetlink(7) as it takes to move a network device into another namespace.
//!
//! A [`Route`] is a socket in one network namespace; it stays there whatever its owner joins later.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recvfrom, send, socket,
};

use crate::process::{Namespaces, setns};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 0x01;
const NLM_F_MULTI: u16 = 0x02;
const NLM_F_ACK: u16 = 0x04;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_CREATE_EXCL: u16 = 0x600;
const NLM_F_CREATE_APPEND: u16 = 0xc00;

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;

const IFLA_IFNAME: u16 = 3;
const IFLA_NET_NS_FD: u16 = 28;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_LABEL: u16 = 3;
const IFA_BROADCAST: u16 = 4;
const IFA_CACHEINFO: u16 = 6;
const IFA_FLAGS: u16 = 8;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_CACHEINFO: u16 = 12;
const RTA_NH_ID: u16 = 30;

const IFF_UP: u32 = 1;
const IFA_F_PERMANENT: u32 = 0x80;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RTNH_F_ONLINK: u32 = 4;
const RTPROT_KERNEL: u8 = 2;
const RTPROT_RA: u8 = 9;

/// Sizes of nlmsghdr, ifinfomsg, ifaddrmsg and rtmsg.
const HEADER: usize = 16;
const LINK: usize = 16;
const ADDRESS: usize = 8;
const ROUTE: usize = 12;

/// A network device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its number, in its namespace.
    pub index: u32,
    /// Its name, in its namespace.
    pub name: String,
    /// Whether it is set up.
    pub up: bool,
}

/// An address of a device, as it can be given to it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    family: u8,
    prefix: u8,
    scope: u8,
    permanent: bool,
    attributes: Vec<(u16, Vec<u8>)>,
}

impl Address {
    /// As the device may have it in another namespace, if it is its own wherever it goes: permanent, and of global scope.
    #[must_use]
    pub fn elsewhere(&self) -> Option<Self> {
        let mut address = (self.permanent && self.scope == RT_SCOPE_UNIVERSE).then(|| self.clone())?;
        address.attributes.retain(|(kind, _)| [IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST].contains(kind));
        Some(address)
    }
}

/// A route through a device, as it can be added again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// struct rtmsg.
    header: [u8; ROUTE],
    /// All but the device.
    attributes: Vec<(u16, Vec<u8>)>,
}

/// A routing socket in one network namespace.
#[derive(Debug)]
pub struct Route(OwnedFd);

/// One message of an answer: its type, and what follows the header.
type Message = (u16, Vec<u8>);

impl Route {
    /// In our own network namespace.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open() -> io::Result<Self> {
        let route = SockProtocol::NetlinkRoute;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, route)?;
        Ok(Self(socket))
    }

    /// In another network namespace, which the calling thread enters for a moment.
    ///
    /// # Errors
    /// The kernel's; EPERM without CAP_SYS_ADMIN over the namespace.
    pub fn open_in(namespace: BorrowedFd<'_>) -> io::Result<Self> {
        let own = File::open("/proc/thread-self/ns/net")?;
        setns(namespace, Namespaces::NET)?;
        let opened = Self::open();
        setns(own.as_fd(), Namespaces::NET)?;
        opened
    }

    /// All devices.
    ///
    /// # Errors
    /// The kernel's.
    pub fn links(&self) -> io::Result<Vec<Link>> {
        let messages = self.ask(RTM_GETLINK, NLM_F_DUMP, &[0; LINK])?;
        Ok(messages.iter().filter_map(link).collect())
    }

    /// The addresses of a device.
    ///
    /// # Errors
    /// The kernel's.
    pub fn addresses(&self, index: u32) -> io::Result<Vec<Address>> {
        let messages = self.ask(RTM_GETADDR, NLM_F_DUMP, &[0; ADDRESS])?;
        Ok(messages.iter().filter_map(|message| address(message, index)).collect())
    }

    /// The routes through a device alone that the kernel doesn't make by itself, nor a router on the net. They are in
    /// an order in which they can be added: a gateway has to be reachable first.
    ///
    /// # Errors
    /// The kernel's.
    pub fn ways(&self, index: u32) -> io::Result<Vec<Way>> {
        let messages = self.ask(RTM_GETROUTE, NLM_F_DUMP, &[0; ROUTE])?;
        let mut ways: Vec<Way> = messages.iter().filter_map(|message| way(message, index)).collect();
        ways.sort_by_key(|way| way.attributes.iter().any(|(kind, _)| *kind == RTA_GATEWAY));
        Ok(ways)
    }

    /// Adds a route through a device.
    ///
    /// # Errors
    /// EEXIST if there is the same; ENETDOWN if the device is down.
    pub fn add_way(&self, index: u32, way: &Way) -> io::Result<()> {
        let mut body = way.header.to_vec();
        attribute(&mut body, RTA_OIF, &index.to_ne_bytes());
        for (kind, value) in &way.attributes {
            attribute(&mut body, *kind, value);
        }
        self.ask(RTM_NEWROUTE, NLM_F_ACK | NLM_F_CREATE_APPEND, &body).map(drop)
    }

    /// Moves a device to another network namespace, under the name `name` (in which `%d` is the first number that is
    /// free). The kernel sets it down for that, and its addresses and routes are lost; but only once nothing can be
    /// in the way of the move any more.
    ///
    /// # Errors
    /// EINVAL if the device is one of those that can't be moved, and others that leave it as it is. If it can't be
    /// renamed, it has been moved, under its old name.
    pub fn move_to(&self, index: u32, name: &str, namespace: BorrowedFd<'_>) -> io::Result<()> {
        let mut body = link_header(index, 0, 0);
        attribute(&mut body, IFLA_IFNAME, &[name.as_bytes(), b"\0"].concat());
        attribute(&mut body, IFLA_NET_NS_FD, &namespace.as_raw_fd().to_ne_bytes());
        self.ask(RTM_NEWLINK, NLM_F_ACK, &body).map(drop)
    }

    /// Sets a device up or down.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_up(&self, index: u32, up: bool) -> io::Result<()> {
        let flags = if up { IFF_UP } else { 0 };
        self.ask(RTM_NEWLINK, NLM_F_ACK, &link_header(index, flags, IFF_UP)).map(drop)
    }

    /// Gives a device an address.
    ///
    /// # Errors
    /// EEXIST if it has it.
    pub fn add_address(&self, index: u32, address: &Address) -> io::Result<()> {
        let mut body = vec![address.family, address.prefix, 0, address.scope];
        body.extend_from_slice(&index.to_ne_bytes());
        for (kind, value) in &address.attributes {
            attribute(&mut body, *kind, value);
        }
        self.ask(RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE_EXCL, &body).map(drop)
    }

    /// Sends one request and collects its answer.
    fn ask(&self, kind: u16, flags: u16, body: &[u8]) -> io::Result<Vec<Message>> {
        let length = u32::try_from(HEADER + body.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut request = length.to_ne_bytes().to_vec();
        request.extend_from_slice(&kind.to_ne_bytes());
        request.extend_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        request.extend_from_slice(&[0; 8]);
        request.extend_from_slice(body);
        send(self.0.as_raw_fd(), &request, MsgFlags::empty())?;
        let mut answer = Vec::new();
        let mut buffer = vec![0; 64 << 10];
        loop {
            let n = match recvfrom::<NetlinkAddr>(self.0.as_raw_fd(), &mut buffer) {
                Err(nix::errno::Errno::EINTR) => continue,
                // Whoever is root in that network namespace, such as a container, can send to this socket as well.
                Ok((_, Some(sender))) if sender.pid() != 0 => continue,
                other => other?.0,
            };
            if take(buffer.get(..n).unwrap_or_default(), &mut answer)? {
                return Ok(answer);
            }
        }
    }
}

/// Takes the messages out of one datagram; true if they were the last.
fn take(mut rest: &[u8], answer: &mut Vec<Message>) -> io::Result<bool> {
    let bad = || io::Error::from(io::ErrorKind::InvalidData);
    while rest.len() >= HEADER {
        let length = word(rest, 0).ok_or_else(bad)? as usize;
        let (kind, flags) = (half(rest, 4).ok_or_else(bad)?, half(rest, 6).ok_or_else(bad)?);
        let body = rest.get(HEADER..length).ok_or_else(bad)?;
        match kind {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => {
                let errno = word(body, 0).ok_or_else(bad)?.cast_signed();
                return if errno == 0 {
                    Ok(true)
                } else {
                    Err(io::Error::from_raw_os_error(errno.wrapping_neg()))
                };
            }
            _ => answer.push((kind, body.to_vec())),
        }
        if flags & NLM_F_MULTI == 0 {
            return Ok(true);
        }
        rest = rest.get(align(length)..).unwrap_or_default();
    }
    Ok(false)
}

fn link((kind, body): &Message) -> Option<Link> {
    let (header, rest) = (*kind == RTM_NEWLINK).then(|| body.split_at_checked(LINK))??;
    let name = attributes(rest).into_iter().find(|(kind, _)| *kind == IFLA_IFNAME)?.1;
    let name = String::from_utf8_lossy(name.strip_suffix(b"\0").unwrap_or(name)).into_owned();
    Some(Link { index: word(header, 4)?, name, up: word(header, 8)? & IFF_UP != 0 })
}

/// If it is one of that device.
fn address((kind, body): &Message, index: u32) -> Option<Address> {
    let (header, rest) = (*kind == RTM_NEWADDR).then(|| body.split_at_checked(ADDRESS))??;
    let (&[family, prefix, flags, scope], _) = header.split_first_chunk::<4>()?;
    let all = attributes(rest);
    let long = all.iter().find(|(kind, _)| *kind == IFA_FLAGS).and_then(|(_, value)| word(value, 0));
    let permanent = long.unwrap_or(flags.into()) & IFA_F_PERMANENT != 0;
    if word(header, 4)? != index {
        return None;
    }
    let known = [IFA_ADDRESS, IFA_LOCAL, IFA_LABEL, IFA_BROADCAST, IFA_CACHEINFO, IFA_FLAGS];
    Some(Address { family, prefix, scope, permanent, attributes: owned(all, |kind| known.contains(&kind)) })
}

/// If it is one of those of the device that somebody has made.
fn way((kind, body): &Message, index: u32) -> Option<Way> {
    let (header, rest) = (*kind == RTM_NEWROUTE).then(|| body.split_first_chunk::<ROUTE>())??;
    let all = attributes(rest);
    let find = |wanted| all.iter().find(|(kind, _)| *kind == wanted).map(|(_, value)| *value);
    let [family, _, _, _, _, protocol, ..] = *header;
    let ip = [AddressFamily::Inet, AddressFamily::Inet6].iter().any(|ip| *ip as i32 == family.into());
    let by_itself = protocol <= RTPROT_KERNEL || protocol == RTPROT_RA;
    // Nexthop objects go with their device.
    if !ip || by_itself || word(find(RTA_OIF)?, 0)? != index || find(RTA_NH_ID).is_some() {
        return None;
    }
    let mut header = *header;
    let flags = word(&header, 8)? & RTNH_F_ONLINK; // because the others are the state that it is in
    header.get_mut(8..)?.copy_from_slice(&flags.to_ne_bytes());
    Some(Way { header, attributes: owned(all, |kind| ![RTA_OIF, RTA_CACHEINFO].contains(&kind)) })
}

/// For integration/fuzz: a datagram of the kernel's, which a container may have sent after all.
#[cfg(feature = "fuzz")]
pub fn fuzz(bytes: &[u8]) {
    let mut answer = Vec::new();
    take(bytes, &mut answer).ok(); // because most bytes are none
    for message in &answer {
        let _: (Option<Link>, Option<Address>, Option<Way>) =
            (link(message), address(message, 1), way(message, 1));
    }
    for (kind, value) in attributes(bytes) {
        let mut again = Vec::new();
        attribute(&mut again, kind, value);
        assert_eq!(attributes(&again), [(kind, value)]);
    }
}

fn link_header(index: u32, flags: u32, change: u32) -> Vec<u8> {
    let mut header = vec![0; 4];
    for number in [index, flags, change] {
        header.extend_from_slice(&number.to_ne_bytes());
    }
    header
}

fn attribute(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    message.extend_from_slice(&length.to_ne_bytes());
    message.extend_from_slice(&kind.to_ne_bytes());
    message.extend_from_slice(value);
    message.resize(align(message.len()), 0);
}

fn attributes(mut rest: &[u8]) -> Vec<(u16, &[u8])> {
    let mut all = Vec::new();
    while let (Some(length), Some(kind)) = (half(rest, 0), half(rest, 2)) {
        let Some(value) = rest.get(4..usize::from(length)) else { break };
        all.push((kind, value));
        rest = rest.get(align(length.into())..).unwrap_or_default();
    }
    all
}

fn owned(attributes: Vec<(u16, &[u8])>, wanted: impl Fn(u16) -> bool) -> Vec<(u16, Vec<u8>)> {
    let all = attributes.into_iter().filter(|(kind, _)| wanted(*kind));
    all.map(|(kind, value)| (kind, value.to_vec())).collect()
}

fn align(length: usize) -> usize {
    length.next_multiple_of(4)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_device_is_seen() {
        let route = Route::open().expect("open");
        let links = route.links().expect("links");
        let lo = links.iter().find(|link| link.name == "lo").expect("lo");
        // Its address is of host scope, so it isn't one that could be moved.
        let addresses = route.addresses(lo.index).expect("addresses");
        assert!(addresses.iter().all(|address| address.elsewhere().is_none()), "{addresses:?}");
        assert!(route.ways(lo.index).is_ok());
    }

    #[test]
    fn what_does_not_exist_is_an_error() {
        let route = Route::open().expect("open");
        let error = route.set_up(0x7fff_fff0, true).expect_err("no such device");
        assert!(matches!(error.raw_os_error(), Some(libc::ENODEV | libc::EPERM)), "{error}");
    }

    #[test]
    fn cut_messages_end_nowhere_else() {
        assert!(take(&[200, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &mut Vec::new()).is_err());
        // The lowest number isn't the negative of any.
        let lowest = [20, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80];
        assert!(take(&lowest, &mut Vec::new()).is_err());
        assert_eq!(attributes(&[9, 0, 1, 0, 1]), []);
        assert_eq!(attributes(&[5, 0, 1, 0, 7, 0, 0, 0]), [(1, &[7][..])]);
    }
}
