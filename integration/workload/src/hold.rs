//! Commands that hold what a checkpoint has to deal with: locks, connections, sockets.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};

use crate::process::until_terminated;
use crate::{Outcome, number, word};

pub(crate) fn lock(arguments: &[String]) -> Outcome {
    let file = File::create(word(arguments, 0)?)?;
    let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno)?;
    println!("locked");
    let outcome = until_terminated();
    drop(lock);
    outcome
}

pub(crate) fn answer(arguments: &[String]) -> Outcome {
    let stream = TcpStream::connect(word(arguments, 0)?)?;
    println!("connected");
    let mut reader = BufReader::new(&stream);
    let mut line = String::new();
    loop {
        line.clear();
        match reader.read_line(&mut line) {
            Ok(0) => break println!("ended"),
            Ok(_) => write!(&stream, "got: {line}")?,
            Err(error) => break println!("ended: {error}"),
        }
    }
    until_terminated()
}

pub(crate) fn backlog(arguments: &[String]) -> Outcome {
    let listener = TcpListener::bind(("127.0.0.1", number(arguments, 0, 80)?))?;
    println!("listening");
    let outcome = until_terminated();
    drop(listener);
    outcome
}

pub(crate) fn stream(arguments: &[String]) -> Outcome {
    let stream = UnixStream::connect(word(arguments, 0)?)?;
    println!("connected");
    let outcome = until_terminated();
    drop(stream);
    outcome
}

pub(crate) fn datagrams(arguments: &[String]) -> Outcome {
    let socket = UnixDatagram::unbound()?;
    socket.connect(word(arguments, 0)?)?;
    for count in 1_u64.. {
        socket.send(count.to_string().as_bytes())?;
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(0)
}
