//! The command of clusters: shows queues and hosts, and prints the part of a server's configuration for roles.

use concurrent_futures_cluster::{ClusterObserver, ClusterRole, authorization_of};
use std::env;
use std::error::Error;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

const USAGE: &str = "\
usage: concurrent-futures top [nats://SERVER:4222] [OPTION ...]
       concurrent-futures authorization QUEUE ROLE=KEY ...
       concurrent-futures permissions QUEUE ROLE

top shows the queues and the hosts of a server, and changes nothing there. Without an address, CONCURRENT_FUTURES_URL
counts. The key of the queues and the way to log in are in the variables CONCURRENT_FUTURES_KEY,
CONCURRENT_FUTURES_TOKEN, CONCURRENT_FUTURES_NKEY, CONCURRENT_FUTURES_CREDENTIALS and
CONCURRENT_FUTURES_ROOT_CERTIFICATES.

--queue QUEUE       shows this queue only, by fewer rights
--interval SECONDS  the time between two looks; 1
--once              ends after one interval: rates are those of that time
--json              prints a line of JSON for each look

authorization prints the part of a server's configuration that permits parties of a queue the subjects that they need.
ROLE is client, host or observer. KEY is the public part of an NKey, which begins with U.

permissions prints the permissions of a role as JSON, as they stand in the claims of a user's JSON web token: for
servers whose parties log in with files of credentials.
";

/// The options of `top`.
struct Options {
    url: Option<String>,
    queue: Option<String>,
    interval: Duration,
    once: bool,
    json: bool,
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, Box<dyn Error>> {
        let mut options = Self {
            url: None,
            queue: None,
            interval: Duration::from_secs(1),
            once: false,
            json: false,
        };
        while let Some(argument) = arguments.next() {
            let mut value = || {
                let value = arguments.next();
                value.ok_or_else(|| format!("{argument} needs a value"))
            };
            match &*argument {
                "--queue" => options.queue = Some(value()?),
                "--interval" => {
                    options.interval = Duration::try_from_secs_f64(value()?.parse()?)?;
                }
                "--once" => options.once = true,
                "--json" => options.json = true,
                _ if argument.starts_with('-') || options.url.is_some() => {
                    return Err(
                        format!("{argument:?} is not known; --help tells the options").into(),
                    );
                }
                _ => options.url = Some(argument),
            }
        }
        Ok(options)
    }
}

fn top(options: Options) -> Result<(), Box<dyn Error>> {
    let mut builder = ClusterObserver::builder();
    if let Some(url) = options.url {
        builder = builder.url(url);
    }
    if let Some(queue) = options.queue {
        builder = builder.queue(queue);
    }
    let observer = builder.build()?;
    let mut output = io::stdout().lock();
    let is_live = !options.once && !options.json && output.is_terminal();
    if options.once {
        observer.look()?;
        thread::sleep(options.interval);
    }
    loop {
        let picture = match observer.look() {
            Ok(view) if options.json => view.to_json() + "\n",
            Ok(view) => view.to_string(),
            Err(error) if options.once => return Err(error.into()),
            // The next look may find the server again.
            Err(error) => {
                writeln!(io::stderr(), "no answer: {error}")?;
                String::new()
            }
        };
        if is_live {
            // From the upper left corner of an empty screen.
            write!(output, "\x1b[H\x1b[2J")?;
        }
        output.write_all(picture.as_bytes())?;
        output.flush()?;
        if options.once {
            return Ok(());
        }
        thread::sleep(options.interval);
    }
}

fn role_of(name: &str) -> Result<ClusterRole, Box<dyn Error>> {
    match name {
        "client" => Ok(ClusterRole::Client),
        "host" => Ok(ClusterRole::Host),
        "observer" => Ok(ClusterRole::Observer),
        _ => Err(format!("{name:?} is none of client, host and observer").into()),
    }
}

fn show_permissions(arguments: &[String]) -> Result<(), Box<dyn Error>> {
    let [queue, role] = arguments else {
        return Err("give a queue and a role".into());
    };
    let role = role_of(role)?;
    // Checks the name of the queue.
    authorization_of(queue, &[])?;
    let mut permissions = serde_json::json!({
        "pub": {"allow": role.publishes(queue)},
        "sub": {"allow": role.subscribes(queue)},
    });
    if role.answers() {
        // Two answers, within a minute.
        permissions["resp"] = serde_json::json!({"max": 2, "ttl": 60_000_000_000_u64});
    }
    writeln!(io::stdout(), "{permissions}")?;
    Ok(())
}

fn authorize(mut arguments: impl Iterator<Item = String>) -> Result<(), Box<dyn Error>> {
    let queue = arguments.next().ok_or("give a queue")?;
    let given: Vec<String> = arguments.collect();
    let mut parties = Vec::new();
    for party in &given {
        let (role, key) = party.split_once('=').ok_or("write ROLE=KEY")?;
        parties.push((role_of(role)?, key));
    }
    if parties.is_empty() {
        return Err("write ROLE=KEY for each party".into());
    }
    io::stdout().write_all(authorization_of(&queue, &parties)?.as_bytes())?;
    Ok(())
}

fn main() -> ExitCode {
    let mut arguments = env::args().skip(1);
    let done = match arguments.next().as_deref() {
        Some("top") => {
            let rest: Vec<String> = arguments.collect();
            if rest.iter().any(|one| one == "--help" || one == "-h") {
                io::stdout().write_all(USAGE.as_bytes()).map_err(Into::into)
            } else {
                Options::parse(rest.into_iter()).and_then(top)
            }
        }
        Some("authorization") => authorize(arguments),
        Some("permissions") => show_permissions(&arguments.collect::<Vec<_>>()),
        Some("-h" | "--help") => io::stdout().write_all(USAGE.as_bytes()).map_err(Into::into),
        _ => Err(USAGE.into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let is_closed = error
                .downcast_ref::<io::Error>()
                .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe);
            if is_closed {
                // The reader has seen enough.
                return ExitCode::SUCCESS;
            }
            // If the error stream is closed, the exit code still tells.
            let _ = writeln!(io::stderr(), "{error}");
            ExitCode::from(2)
        }
    }
}
