//! The smallest HTTP server and client.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use crate::{Outcome, number, word};

pub(crate) fn serve(arguments: &[String]) -> Outcome {
    let port: u16 = number(arguments, 0, 80)?;
    let text = arguments.get(1).map_or("hello", String::as_str);
    let listener = TcpListener::bind(("0.0.0.0", port))?;
    println!("listening: {port}");
    for stream in listener.incoming() {
        // One bad client must not end the server.
        if let Err(error) = stream.and_then(|s| answer(&s, text)) {
            eprintln!("client: {error}");
        }
    }
    Ok(0)
}

fn answer(stream: &TcpStream, text: &str) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    let mut out = stream;
    write!(out, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}", text.len())
}

pub(crate) fn get(arguments: &[String]) -> Outcome {
    let address = word(arguments, 0)?;
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(&stream, "GET / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    (&stream).read_to_string(&mut answer)?;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    println!("{body}");
    Ok(0)
}
