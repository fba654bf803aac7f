//! Answers of a hub: the list of a model's files, and the files themselves, from a server on loopback.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, spawn};
use std::time::Duration;

use colbert_model::Pretrained;
use ragtrainer::hub::Hub;

use super::scratch::{parts, with_scratch};

/// Requests of one input that are answered; later connections are closed without an answer.
const MOST_ANSWERS: usize = 64;

/// A server that sends the parts of an input, whatever the requests ask for.
struct Server {
    address: SocketAddr,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(answers: Vec<Vec<u8>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port on loopback");
        let address = listener.local_addr().expect("the port's address");
        let ended = Arc::new(AtomicBool::new(false));
        let stop = ended.clone();
        let thread = spawn(move || {
            for (number, connection) in listener.incoming().enumerate() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                if let Ok(connection) = connection
                    && number < MOST_ANSWERS
                {
                    // Once all parts are sent, the last one is repeated. A client that hung up does not matter.
                    drop(answer(connection, &answers[number.min(answers.len() - 1)]));
                }
            }
        });
        Self { address, ended, thread: Some(thread) }
    }
}

/// Reads a request, sends the answer as it is and closes the connection, which ends the body.
fn answer(mut connection: TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    connection.set_read_timeout(Some(Duration::from_secs(1)))?;
    let (mut request, mut buffer) = (Vec::new(), [0; 1024]);
    while !request.ends_with(b"\r\n\r\n") {
        match connection.read(&mut buffer)? {
            0 => return Ok(()),
            count => request.extend_from_slice(&buffer[..count]),
        }
    }
    connection.write_all(bytes)
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // A connection wakes the thread, which then ends.
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the server does not panic");
        }
    }
}

/// Runs the target on an input.
pub fn run(bytes: &[u8]) {
    let server = Server::start(parts(bytes, b"\n==\n"));
    with_scratch(
        "hub",
        |_| (),
        |scratch| {
            scratch.clear();
            let hub = Hub {
                endpoint: format!("http://{}", server.address),
                token: Some("secret".to_owned()),
                cache: scratch.path().join("cache"),
                offline: false,
            };
            if let Ok(folder) = hub.model("org/name", &mut |_| ()) {
                assert!(folder.starts_with(&hub.cache), "{} is outside the cache", folder.display());
                drop(Pretrained::read(&folder));
            }
            let entries = fs::read_dir(scratch.path()).expect("the folder of this target");
            let outside: Vec<_> =
                entries.flatten().map(|entry| entry.file_name()).filter(|name| name != "cache").collect();
            assert!(outside.is_empty(), "written outside the cache: {outside:?}");
        },
    );
}
