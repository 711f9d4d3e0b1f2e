//! A server that answers as a test says, and remembers what it was asked.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A request, as it came.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Method and target: `GET /v2/`.
    pub line: String,
    /// The headers, their names in small letters.
    pub headers: Vec<(String, String)>,
    /// What was sent.
    pub body: Vec<u8>,
}

impl Asked {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// What is answered.
pub struct Reply {
    status: u16,
    headers: String,
    body: Vec<u8>,
    /// How many bytes of the body are sent before the connection is closed.
    sent: usize,
}

impl Reply {
    /// The connection is closed without an answer.
    pub fn none() -> Self {
        Self::of(0)
    }

    pub fn of(status: u16) -> Self {
        Self { status, headers: String::new(), body: Vec::new(), sent: usize::MAX }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push_str(&format!("{name}: {value}\r\n"));
        self
    }

    pub fn body(self, body: impl AsRef<[u8]>) -> Self {
        Self { body: body.as_ref().to_vec(), ..self }
    }

    /// Only so many bytes of the body come.
    pub fn cut(self, sent: usize) -> Self {
        Self { sent, ..self }
    }
}

type Answer = dyn Fn(&Asked, usize) -> Reply + Send + Sync;

/// A server on this machine.
pub struct Server {
    /// Its host and port.
    pub host: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    /// Answers by `answer`, which is told how many requests of that line came before. What has no
    /// TLS is asked for `/v2/` first, and says 200 to that.
    pub fn start(answer: impl Fn(&Asked, usize) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_at("127.0.0.1", answer)
    }

    /// The same at another address of this machine, such as 127.0.0.2.
    pub fn start_at(address: &str, answer: impl Fn(&Asked, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((address, 0)).expect("a port");
        let host = listener.local_addr().expect("an address").to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (answer, log): (Arc<Answer>, _) = (Arc::new(answer), Arc::clone(&asked));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answer, log) = (Arc::clone(&answer), Arc::clone(&log));
                std::thread::spawn(move || serve(&stream, &*answer, &log));
            }
        });
        Self { host, asked }
    }

    /// All that was asked till now.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("no panic").clone()
    }

    /// The same, methods and targets only.
    pub fn lines(&self) -> Vec<String> {
        self.asked().into_iter().map(|asked| asked.line).collect()
    }

    /// How many requests began so.
    pub fn count(&self, begin: &str) -> usize {
        self.lines().iter().filter(|line| line.starts_with(begin)).count()
    }

    /// Whether anybody was told a password or token.
    pub fn was_told(&self) -> bool {
        let asked = self.asked();
        asked.iter().any(|asked| asked.header("authorization").is_some() || !asked.body.is_empty())
    }
}

/// A request without its signature, which another second changes.
fn unsigned(line: &str) -> Vec<&str> {
    line.split(['?', '&']).filter(|part| !part.starts_with("X-Amz-")).collect()
}

fn serve(stream: &TcpStream, answer: &Answer, log: &Mutex<Vec<Asked>>) {
    let mut reader = BufReader::new(stream);
    while let Some(asked) = read(&mut reader) {
        let before = {
            let mut log = log.lock().expect("no panic");
            log.push(asked.clone());
            let line = unsigned(&asked.line);
            log.iter().filter(|other| unsigned(&other.line) == line).count() - 1
        };
        let reply = answer(&asked, before);
        if reply.status == 0 {
            return;
        }
        let is_head = asked.line.starts_with("HEAD");
        let has_length = reply.headers.to_ascii_lowercase().contains("content-length");
        let length = if has_length { String::new() } else { format!("content-length: {}\r\n", reply.body.len()) };
        let head = format!("HTTP/1.1 {} x\r\n{length}{}\r\n", reply.status, reply.headers);
        let body = if is_head { &[][..] } else { &reply.body[..reply.body.len().min(reply.sent)] };
        let mut stream = stream;
        if stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).is_err() {
            return;
        }
        if body.len() < reply.body.len() && !is_head {
            return;
        }
    }
}

fn read(reader: &mut BufReader<&TcpStream>) -> Option<Asked> {
    let first = reader.fill_buf().ok()?.first().copied()?;
    if !first.is_ascii_alphabetic() {
        // As Go says to a client that begins with TLS.
        let _ = reader.get_mut().write_all(b"HTTP/1.0 400 Bad Request\r\n\r\nnot TLS");
        return None;
    }
    let mut lines = reader.by_ref().lines().map_while(Result::ok);
    let line = lines.next()?;
    let line = line.rsplit_once(' ')?.0.to_owned();
    let headers = lines.take_while(|line| !line.is_empty());
    let split = |line: String| line.split_once(": ").map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()));
    let headers: Vec<(String, String)> = headers.filter_map(split).collect();
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let mut body = vec![0; length.map_or(0, |(_, length)| length.parse().expect("a number"))];
    reader.read_exact(&mut body).ok()?;
    Some(Asked { line, headers, body })
}
