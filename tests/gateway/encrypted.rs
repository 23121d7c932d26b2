//! A provider whose certificate is of an authority that nobody else knows.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
};

use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

use crate::support::{Gateway, SECRETS, configuration, until};

const ALICE: &str = SECRETS[2];
/// Good for a server of these tests and nothing else.
const FOLDER: &str = "tests/redis_faults/tls";
const ANSWER: &str = r#"{"choices":[],"usage":{"prompt_tokens":8,"completion_tokens":12}}"#;

/// Answers all alike, over TLS. It counts them.
fn provider() -> (SocketAddr, Arc<AtomicUsize>) {
    let certificate = CertificateDer::from_pem_file(format!("{FOLDER}/server.pem"));
    let key = PrivateKeyDer::from_pem_file(format!("{FOLDER}/server.key"));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring speaks them")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.expect("a certificate")], key.expect("its key"))
        .expect("they belong together");
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let answered = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&answered);
    thread::spawn(move || {
        for socket in listener.incoming() {
            let connection = ServerConnection::new(Arc::clone(&config)).expect("a configuration");
            let stream = StreamOwned::new(connection, socket.expect("a connection"));
            if answer(BufReader::new(stream)).is_ok() {
                count.fetch_add(1, SeqCst);
            }
        }
    });
    (address, answered)
}

fn answer(
    mut stream: BufReader<StreamOwned<ServerConnection, std::net::TcpStream>>,
) -> std::io::Result<()> {
    let (mut length, mut line) = (0, String::new());
    while stream.read_line(&mut line)? > 2 {
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().expect("a length");
        }
        line.clear();
    }
    stream.read_exact(&mut vec![0; length])?;
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n";
    let stream = stream.get_mut();
    write!(stream, "{head}Content-Length: {}\r\n\r\n{ANSWER}", ANSWER.len())?;
    stream.conn.send_close_notify();
    stream.flush()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_behind_an_authority_of_its_own_is_trusted_where_the_configuration_says_so() {
    let (address, answered) = provider();
    let plain = configuration(address, "")
        .replace(&format!("http://{address}"), &format!("https://localhost:{}", address.port()));
    let stranger = Gateway::start(&plain).await;
    assert_eq!(stranger.chat(ALICE, "gpt", "Hello").await.status(), 502);
    assert_eq!(answered.load(SeqCst), 0, "nothing was sent");

    let ca_file = format!("ca_file = \"{FOLDER}/authority.pem\"\nbase_url");
    let gateway = Gateway::start(&plain.replace("base_url", &ca_file)).await;
    for _ in 0..2 {
        let answer = gateway.chat(ALICE, "gpt", "Hello").await;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.text().await.expect("a whole answer"), ANSWER);
    }
    // It counts an answer when it has sent it: that may be seen before.
    until(|| async { answered.load(SeqCst) == 2 }).await;
}
