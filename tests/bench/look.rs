//! What `tests/bench/look` runs: the ways to ask AWS whether a credential has changed, each against one AWS API server,
//! over TLS.
//!
//! Between two rounds the connection is cut, as the service does with one that is idle from poll to poll; so each round
//! pays for a new one, and resumes the TLS session where that is possible. Bytes are counted where they pass, on TCP and
//! with all of TLS in them; moto also ends the connection after each answer, where AWS goes on with it, so a round of three
//! requests is three connections here. The time is that of the thread which runs the SDK. Nothing here fails because of a time.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_secretsmanager::config::Builder as SecretsBuilder;
use aws_sdk_ssm::config::Builder as ParametersBuilder;
use relaykey::aws::{AwsSession, Http};
use relaykey::config::{self, Aws, Credential};
use relaykey::credential::{JsonKeys, LocalKey};
use relaykey::source;
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;

#[path = "../lab/moto.rs"]
#[allow(dead_code, reason = "the tests need more of it")]
mod moto;
#[path = "../lab/scratch.rs"]
mod scratch;
use moto::{Moto, REGION};

const SECRET: &str = "bench/look";
const PARAMETER: &str = "/bench/look";
const LOGIN: &str = "AKIAIOSFODNN7EXAMPLE:BMPPgbAHoFVbze1Ud0oA5uNdXRwUXUZ+qOwphGJbl/cS";
/// Labels of the list; they lie on two versions.
const LABELS: [&str; 3] = ["AWSCURRENT", "CANARY", "AWSPREVIOUS"];

/// A poll every five minutes, 30 days.
const POLLS: f64 = 288.0 * 30.0;
/// US dollars for one call (https://aws.amazon.com/secrets-manager/pricing/).
const SECRETS_MANAGER: f64 = 0.05 / 10_000.0;
/// US dollars for one decryption with a customer managed key (https://aws.amazon.com/kms/pricing/).
const KMS: f64 = 0.03 / 10_000.0;

fn main() -> ExitCode {
    let rounds = match std::env::args().nth(1).map(|n| n.parse::<u32>()) {
        None => 30,
        Some(Ok(n)) if (1..=10_000).contains(&n) => n,
        Some(_) => {
            eprintln!("bench-look: the number of rounds is one from 1 to 10000");
            return ExitCode::FAILURE;
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.map_err(|e| e.to_string()).and_then(|runtime| runtime.block_on(run(rounds))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(what) => {
            eprintln!("bench-look: {what}");
            ExitCode::FAILURE
        }
    }
}

/// One way to ask.
struct Way {
    name: &'static str,
    /// Calls that are priced, and decryptions, for one round.
    price: f64,
    decryptions: f64,
    /// Does the credential itself come back?
    secret: bool,
    sent: u64,
    received: u64,
    requests: usize,
    nanoseconds: u64,
}

async fn run(rounds: u32) -> Result<(), String> {
    let moto = Moto::start();
    moto.secret(SECRET, LOGIN);
    moto.put(SECRET, &LOGIN.replace("7EXAMPLE", "7CANARY0"), &["CANARY"]);
    moto.parameter(PARAMETER, LOGIN);
    for n in 1..3 {
        moto.parameter(&format!("{PARAMETER}-{n}"), LOGIN);
    }
    let key = std::env::var("AWS_ACCESS_KEY_ID").map_err(|_| "run tests/bench/look, which sets the environment")?;
    let port = moto.tls_endpoint().rsplit(':').next().and_then(|p| p.parse().ok()).ok_or("no port")?;
    let wire = Wire::start(port).map_err(|e| e.to_string())?;
    let http = Http::new(moto.ca_pem().as_bytes());
    let aws = Aws { region: Some(REGION.into()), endpoint_url: Some(wire.endpoint.clone()), ..Aws::default() };
    let open = |source| {
        let poll = config::DEFAULT_POLL;
        let credential = Credential {
            name: "ses".into(),
            source,
            keys: JsonKeys::default(),
            poll,
            mode: relaykey::config::Mode::Automatic,
            probe: None,
            targets: Vec::new(),
        };
        source::open(&credential, &LocalKey::new([1; 32]), &http).map_err(|e| e.to_string())
    };
    let secret = |stages: &[&str]| {
        let stages = stages.iter().map(|&s| s.to_owned()).collect();
        open(config::SourceConfig::SecretsManager { secret: SECRET.into(), stages, aws: aws.clone() })
    };
    let (one, list) = (secret(&LABELS[..1])?, secret(&LABELS)?);
    let parameter =
        open(config::SourceConfig::ParameterStore { parameter: PARAMETER.into(), label: None, aws: aws.clone() })?;
    let session = AwsSession::new(&aws, &http).map_err(|e| e.to_string())?;
    let sdk = session.config().await.map_err(|e| e.to_string())?;
    let secrets = aws_sdk_secretsmanager::Client::from_conf(SecretsBuilder::from(&sdk).build());
    let parameters = aws_sdk_ssm::Client::from_conf(ParametersBuilder::from(&sdk).build());

    let mut bench = Bench { moto: &moto, key, wire, rounds, ways: Vec::new() };
    let sm = SECRETS_MANAGER;
    bench.way("GetSecretValue, one label", sm, 1.0, true, async || got(one.fetch().await)).await?;
    bench.way("DescribeSecret, one label (a look)", sm, 0.0, false, async || got(one.look().await)).await?;
    bench.way("GetSecretValue for each of three labels", 3.0 * sm, 3.0, true, async || got(list.fetch().await)).await?;
    bench.way("DescribeSecret, three labels (a look)", sm, 0.0, false, async || got(list.look().await)).await?;
    let versions = async || got(secrets.list_secret_version_ids().secret_id(SECRET).send().await);
    bench.way("ListSecretVersionIds", sm, 0.0, false, versions).await?;
    let batch = async || got(secrets.batch_get_secret_value().secret_id_list(SECRET).send().await);
    bench.way("BatchGetSecretValue, AWSCURRENT alone", sm, 1.0, true, batch).await?;
    bench.way("GetParameter, decrypted", 0.0, 1.0, true, async || got(parameter.fetch().await)).await?;
    bench.way("GetParameter, not decrypted (a look)", 0.0, 0.0, false, async || got(parameter.look().await)).await?;
    let names = || [PARAMETER.to_owned(), format!("{PARAMETER}-1"), format!("{PARAMETER}-2")];
    let several = async || {
        let ask = parameters.get_parameters().set_names(Some(names().to_vec())).with_decryption(false);
        got(ask.send().await)
    };
    bench.way("GetParameters, three, not decrypted", 0.0, 0.0, false, several).await?;
    bench.print();
    Ok(())
}

fn got<T, E: std::error::Error>(answer: Result<T, E>) -> Result<(), String> {
    answer.map(drop).map_err(|e| e.to_string())
}

struct Bench<'a> {
    moto: &'a Moto,
    key: String,
    wire: Wire,
    rounds: u32,
    ways: Vec<Way>,
}

impl Bench<'_> {
    async fn way(
        &mut self,
        name: &'static str,
        price: f64,
        decryptions: f64,
        secret: bool,
        mut ask: impl AsyncFnMut() -> Result<(), String>,
    ) -> Result<(), String> {
        let mut way = Way { name, price, decryptions, secret, sent: 0, received: 0, requests: 0, nanoseconds: 0 };
        // The first round is not measured: names are resolved, code is paged in, labels are learned.
        for round in 0..=self.rounds {
            let (calls, bytes, began) = (self.moto.calls(&self.key).len(), self.wire.bytes(), thread_time());
            ask().await.map_err(|what| format!("{name}: {what}"))?;
            let took = thread_time() - began;
            self.wire.cut();
            // For the SDK to see that the connection is gone.
            tokio::time::sleep(Duration::from_millis(20)).await;
            let (sent, received) = self.wire.bytes();
            if round > 0 {
                way.sent += sent - bytes.0;
                way.received += received - bytes.1;
                way.requests += self.moto.calls(&self.key).len() - calls;
                way.nanoseconds += took;
            }
        }
        self.ways.push(way);
        Ok(())
    }

    fn print(&self) {
        let rounds = f64::from(self.rounds);
        println!("mean of {} rounds, a new connection each; prices: one host, every 5 minutes, 30 days\n", self.rounds);
        println!(
            "| asked with | requests | bytes sent | bytes received | CPU ms | credential comes | calls | with own KMS key |"
        );
        println!("|---|---|---|---|---|---|---|---|");
        let per = |n: u64| n as f64 / rounds;
        for way in &self.ways {
            println!(
                "| {} | {:.0} | {:.0} | {:.0} | {:.2} | {} | ${:.3} | ${:.3} |",
                way.name,
                way.requests as f64 / rounds,
                per(way.sent),
                per(way.received),
                per(way.nanoseconds) / 1e6,
                if way.secret { "yes" } else { "no" },
                way.price * POLLS,
                (way.price + way.decryptions * KMS) * POLLS,
            );
        }
        println!();
        for (look, fetch) in [(1, 0), (3, 2), (7, 6)] {
            let (look, fetch) = (&self.ways[look], &self.ways[fetch]);
            let bytes = |w: &Way| (w.sent + w.received) as f64;
            println!(
                "{}: {:.2} of the requests, {:.2} of the bytes, {:.2} of the CPU time of: {}",
                look.name,
                look.requests as f64 / fetch.requests as f64,
                bytes(look) / bytes(fetch),
                look.nanoseconds as f64 / fetch.nanoseconds as f64,
                fetch.name
            );
        }
        println!(
            "{}",
            json!({"rounds": self.rounds, "ways": self.ways.iter().map(|w| json!({
            "name": w.name, "requests": w.requests, "sent": w.sent, "received": w.received, "nanoseconds": w.nanoseconds,
        })).collect::<Vec<_>>()})
        );
    }
}

/// CPU time of this thread, in nanoseconds.
fn thread_time() -> u64 {
    let at = clock_gettime(ClockId::ThreadCPUTime);
    u64::try_from(at.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(at.tv_nsec).unwrap_or(0)
}

/// A way to the server that counts what passes, and can be cut.
struct Wire {
    endpoint: String,
    counts: Arc<[AtomicU64; 2]>,
    joined: Arc<Mutex<Vec<TcpStream>>>,
}

impl Wire {
    fn start(to: u16) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let wire = Self {
            endpoint: format!("https://localhost:{}", listener.local_addr()?.port()),
            counts: Arc::default(),
            joined: Arc::default(),
        };
        let (counts, joined) = (wire.counts.clone(), wire.joined.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(("127.0.0.1", to)) else { continue };
                for (from, to, count) in [(&client, &server, 0), (&server, &client, 1)] {
                    if let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) {
                        let counts = counts.clone();
                        std::thread::spawn(move || pump(from, to, &counts[count]));
                    }
                }
                if let Ok(mut joined) = joined.lock() {
                    joined.extend([client, server]);
                }
            }
        });
        Ok(wire)
    }

    /// (sent, received) so far.
    fn bytes(&self) -> (u64, u64) {
        (self.counts[0].load(Ordering::SeqCst), self.counts[1].load(Ordering::SeqCst))
    }

    fn cut(&self) {
        if let Ok(mut joined) = self.joined.lock() {
            for stream in joined.drain(..) {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, count: &AtomicU64) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        count.fetch_add(n as u64, Ordering::SeqCst);
        if to.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
