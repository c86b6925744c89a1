//! `tidegate client`: one polite client.
//!
//! It sends a message, waits for the reply, thinks, and sends the next. At the end it closes its half of the connection,
//! prints what still comes, and says how long all of it took.

mod args;
mod failure;
mod output;
mod random;
mod socket;
mod source;
mod speech;
mod talk;
mod wire;

pub(super) use self::args::ClientArgs;
use self::failure::Failure;
use self::source::{DATAGRAM_MAX, Messages};
use self::speech::{ReplyEnd, Requests, Speech};
use self::talk::Talk;
use self::wire::Dialer;
use super::exit::{self, fail};
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tidegate_protocols::RequestForm;
use tidegate_protocols::tls::TlsChoices;
use tidegate_units::unescape;
use tidegate_units::url::{Scheme, Url, UrlError};

/// How long it has to be quiet after a reply that no newline ends, unless `--quiet` says another time.
const QUIET: Duration = Duration::from_millis(50);

/// Runs it.
pub(super) fn run(args: ClientArgs) -> ExitCode {
    match converse(&args) {
        Ok(said) => {
            if !args.no_total {
                // Nobody can be told when stderr is closed.
                let _ = writeln!(io::stderr(), "{said}");
            }
            ExitCode::from(exit::OK)
        }
        Err(Failure::Usage(why)) => fail(exit::USAGE, why),
        Err(Failure::Failed(why)) => fail(exit::FAILED, why),
        Err(Failure::ReaderGone) => ExitCode::from(exit::OK),
    }
}

fn converse(args: &ClientArgs) -> Result<String, Failure> {
    let url = target(&args.url)?;
    for (option, time) in [("--timeout", Some(args.timeout)), ("--quiet", args.quiet)] {
        if time.is_some_and(|time| time.is_zero()) {
            return Err(Failure::Usage(format!("{option} is 0: it must be more, like 5s or 50ms")));
        }
    }
    let data = args.data.as_deref().map(unescape).transpose().map_err(Failure::Usage)?;
    let datagrams = url.scheme == Scheme::Udp;
    if let Some(size) = data.as_ref().map(Vec::len).filter(|size| *size > DATAGRAM_MAX)
        && datagrams
    {
        let why = format!("--data has {size} bytes, and a datagram has at most {DATAGRAM_MAX}");
        return Err(Failure::Usage(why));
    }
    let form = RequestForm::of(&url, args.method.as_deref(), &args.header).map_err(Failure::Usage)?;
    let dialer = Dialer::new(&url, &tls_choices(args), &form, args.timeout)?;
    let speech = speech(args, &url, form, data.as_deref())?;
    let source = Messages::open(args, datagrams)?;
    let began = Instant::now();
    let wire = dialer.dial()?;
    let mut talk = Talk::new(url, dialer, wire, speech, source);
    talk.think = args.think;
    talk.timeout = args.timeout;
    let done = talk.run(data);
    let written = talk.output.finish();
    let (sent, replies) = talk.counts();
    done.and(written)?;
    let plural = |n: u64, one: &str, many: &str| format!("{n} {}", if n == 1 { one } else { many });
    Ok(format!(
        "{} sent, {}, {:.3} s in all",
        plural(sent, "message", "messages"),
        plural(replies, "reply", "replies"),
        began.elapsed().as_secs_f64()
    ))
}

/// The server, if it is one that can be connected to.
fn target(text: &str) -> Result<Url, Failure> {
    let url: Url = text.parse().map_err(|error: UrlError| Failure::Usage(error.to_string()))?;
    match url.port == 0 && url.socket().is_none() {
        true => Err(Failure::Usage(format!("{url}: port 0 is not a port to connect to"))),
        false => Ok(url),
    }
}

fn tls_choices(args: &ClientArgs) -> TlsChoices {
    let mut choices = TlsChoices::default();
    choices.authorities = args.cacert.clone();
    choices.insecure = args.insecure;
    choices.name = args.tls_name.clone();
    choices
}

/// How messages are sent, and where replies end.
fn speech(args: &ClientArgs, url: &Url, form: RequestForm, data: Option<&[u8]>) -> Result<Speech, Failure> {
    let is_web = url.scheme.has_path();
    if is_web && (args.no_newline || args.quiet.is_some()) {
        let why = format!("--no-newline and --quiet are about replies that are bytes, and this is {url}");
        return Err(Failure::Usage(why));
    }
    Ok(match url.scheme.inside_tls().unwrap_or(url.scheme) {
        Scheme::Udp => Speech::Datagrams,
        Scheme::Http | Scheme::HttpUnix => Speech::Http(Box::new(Requests::new(url, form))),
        Scheme::Ws | Scheme::WsUnix => Speech::Socket(Box::default()),
        Scheme::Tcp | Scheme::Unix => Speech::Bytes {
            adds_newline: !args.no_newline && data.is_none(),
            reply_end: reply_end(args, data),
        },
        _ => return Err(Failure::Usage(format!("{url}: the client does not speak that"))),
    })
}

fn reply_end(args: &ClientArgs, data: Option<&[u8]>) -> ReplyEnd {
    let without_newline = args.no_newline || data.is_some_and(|data| !data.ends_with(b"\n"));
    match args.quiet {
        Some(time) => ReplyEnd::Quiet(time),
        None if without_newline => ReplyEnd::Quiet(QUIET),
        None => ReplyEnd::Newline,
    }
}
