//! A server that speaks as much of Redis's protocol as the link does, and says what a test wants.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// What moving in is answered with: the prefix is this deployment's, and the key of fingerprints.
pub(super) const MOVED_IN: &str = "*2\r\n$4\r\nours\r\n$32\r\n0123456789abcdef0123456789abcdef\r\n";

/// What the server does with a command.
pub(super) enum Answer {
    /// It says this, in the protocol's form.
    Says(String),
    /// It says this and ends the connection.
    SaysAndCloses(String),
    /// It ends the connection.
    Closes,
    /// It says nothing, and keeps the connection.
    Nothing,
}

/// The server. It ends when it is dropped.
pub(super) struct Fake {
    addr: SocketAddr,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Answers = Arc<Mutex<dyn FnMut(usize, &[String]) -> Answer + Send>>;

impl Fake {
    /// A server that answers each command with what `answer` says for it. Connections are numbered from 1.
    pub(super) async fn start(answer: impl FnMut(usize, &[String]) -> Answer + Send + 'static) -> Self {
        Self::start_at(0, answer).await
    }

    /// The same at a known port.
    pub(super) async fn start_at(port: u16, answer: impl FnMut(usize, &[String]) -> Answer + Send + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let (addr, connections) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
        let (count, answer): (_, Answers) = (Arc::clone(&connections), Arc::new(Mutex::new(answer)));
        let task = tokio::spawn(async move {
            let mut serving = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let number = count.fetch_add(1, Ordering::Relaxed) + 1;
                serving.spawn(serve(stream, number, Arc::clone(&answer)));
            }
        });
        Self { addr, connections, task }
    }

    pub(super) fn port(&self) -> u16 {
        self.addr.port()
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// How many connections it has taken.
    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

async fn serve(stream: TcpStream, number: usize, answer: Answers) {
    let mut stream = BufReader::new(stream);
    while let Some(command) = command(&mut stream).await {
        let said = answer.lock().unwrap()(number, &command);
        let (text, goes_on) = match said {
            Answer::Says(text) => (text, true),
            Answer::SaysAndCloses(text) => (text, false),
            Answer::Closes => return,
            Answer::Nothing => continue,
        };
        if stream.write_all(text.as_bytes()).await.is_err() || !goes_on {
            return;
        }
    }
}

/// The next command: an array of strings.
async fn command(stream: &mut BufReader<TcpStream>) -> Option<Vec<String>> {
    let count = length(stream, '*').await?;
    let mut words = Vec::new();
    for _ in 0..count {
        let mut word = vec![0; length(stream, '$').await? + 2];
        stream.read_exact(&mut word).await.ok()?;
        word.truncate(word.len() - 2);
        words.push(String::from_utf8_lossy(&word).into_owned());
    }
    Some(words)
}

async fn length(stream: &mut BufReader<TcpStream>, sign: char) -> Option<usize> {
    let mut line = String::new();
    stream.read_line(&mut line).await.ok()?;
    line.trim_end().strip_prefix(sign)?.parse().ok()
}
