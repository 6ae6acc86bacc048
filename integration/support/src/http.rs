//! HTTP/1.1 as far as tests need it: one request a connection, to loopback, and a server to lie with.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// A request, as a client sends it or a server gets it.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// GET, PUT...
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

/// A response.
#[derive(Debug, Clone, Default)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Request {
    /// A request without a body.
    #[must_use]
    pub fn new(method: &str, target: &str) -> Self {
        Self { method: method.to_owned(), target: target.to_owned(), ..Self::default() }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_ascii_lowercase(), value.to_owned()));
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: &[u8]) -> Self {
        self.body = body.to_vec();
        self
    }

    /// Sends it and reads the whole answer.
    ///
    /// # Errors
    /// When the server can't be reached or doesn't speak HTTP.
    pub fn send(&self, server: SocketAddr) -> Result<Response> {
        let what = || format!("{} http://{server}{}", self.method, self.target);
        let stream = TcpStream::connect_timeout(&server, Duration::from_secs(10)).with_context(what)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let mut head =
            format!("{} {} HTTP/1.1\r\nhost: {server}\r\nconnection: close\r\n", self.method, self.target);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("content-length: {}\r\n\r\n", self.body.len()));
        (&stream).write_all(head.as_bytes()).with_context(what)?;
        (&stream).write_all(&self.body).with_context(what)?;
        read_response(&mut BufReader::new(stream), self.method == "HEAD").with_context(what)
    }
}

impl Response {
    /// A response with a body.
    #[must_use]
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into() }
    }

    /// Adds a header.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_ascii_lowercase(), value.to_owned()));
        self
    }

    /// The value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

fn read_head(reader: &mut impl BufRead) -> Result<(String, Vec<(String, String)>)> {
    let mut first = String::new();
    if reader.read_line(&mut first)? == 0 {
        bail!("the connection was closed");
    }
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let line = line.trim_end();
        if line.is_empty() {
            return Ok((first.trim_end().to_owned(), headers));
        }
        let (name, value) = line.split_once(':').with_context(|| format!("header {line:?}"))?;
        headers.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
    }
}

fn length(headers: &[(String, String)]) -> Option<u64> {
    headers.iter().find(|(n, _)| n == "content-length").and_then(|(_, v)| v.parse().ok())
}

fn read_response(reader: &mut impl BufRead, no_body: bool) -> Result<Response> {
    let (first, headers) = read_head(reader)?;
    let status =
        first.split(' ').nth(1).and_then(|s| s.parse().ok()).with_context(|| format!("status {first:?}"))?;
    let chunked = headers.iter().any(|(n, v)| n == "transfer-encoding" && v == "chunked");
    let mut body = Vec::new();
    if no_body || status == 204 || status == 304 {
    } else if chunked {
        read_chunks(reader, &mut body)?;
    } else {
        reader.take(length(&headers).unwrap_or(u64::MAX)).read_to_end(&mut body)?;
    }
    Ok(Response { status, headers, body })
}

fn read_chunks(reader: &mut impl BufRead, body: &mut Vec<u8>) -> Result<()> {
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let size = u64::from_str_radix(line.trim(), 16).with_context(|| format!("chunk size {line:?}"))?;
        reader.take(size).read_to_end(body)?;
        line.clear();
        reader.read_line(&mut line)?;
        if size == 0 {
            return Ok(());
        }
    }
}

/// A server on loopback that answers as a test wishes; ends when dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
}

impl Server {
    /// Serves every request by `handler`, each connection in a thread of its own.
    ///
    /// # Errors
    /// When no port can be had.
    pub fn start(handler: impl Fn(&Request) -> Response + Send + Sync + 'static) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("listen on loopback")?;
        let address = listener.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, handler) = (stop.clone(), Arc::new(handler));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let handler = handler.clone();
                std::thread::spawn(move || answer(&stream, handler.as_ref()));
            }
        });
        Ok(Self { address, stop })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        TcpStream::connect(self.address).ok(); // wakes the accepting thread, which then ends
    }
}

fn answer(stream: &TcpStream, handler: &dyn Fn(&Request) -> Response) -> Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let (first, headers) = read_head(&mut reader)?;
        let mut words = first.split(' ').map(str::to_owned);
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let mut body = Vec::new();
        reader.by_ref().take(length(&headers).unwrap_or(0)).read_to_end(&mut body)?;
        let head_only = method == "HEAD";
        let response = handler(&Request { method, target, headers, body });
        let mut head = format!("HTTP/1.1 {} Test\r\n", response.status);
        for (name, value) in &response.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if length(&response.headers).is_none() {
            head.push_str(&format!("content-length: {}\r\n", response.body.len()));
        }
        head.push_str("\r\n");
        let mut out = stream;
        out.write_all(head.as_bytes())?;
        if !head_only {
            out.write_all(&response.body)?;
        }
        if length(&response.headers).is_some_and(|l| l != response.body.len() as u64) && !head_only {
            stream.shutdown(std::net::Shutdown::Both)?; // a promised length that isn't kept ends the connection
            return Ok(());
        }
    }
}
