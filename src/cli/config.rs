//! The environment and the configuration file, from which options come besides the command line. Their values are read
//! by the option's own parser.

use super::args::ServeArgs;
use super::exit::one_line;
use super::{gate_options, tls_options, web_options};
use crate::limits::TABLE;
use crate::limits::show_time;
use clap::{Args, Command, FromArgMatches};
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// A configuration file larger than this is a mistake.
const SIZE_MAX: u64 = 1024 * 1024;
/// The name of the tables of listeners that have something of their own.
const LISTENER: &str = "listener";
/// How long a configuration that comes through a pipe may be silent.
const SILENCE_MAX: Duration = Duration::from_millis(800);

/// Adds what the environment and the configuration file say to what the command line said.
pub(super) fn merge(args: ServeArgs) -> Result<ServeArgs, String> {
    let parser = Parser::new();
    let args = args.or(environment(&parser)?);
    match args.config.clone() {
        Some(path) => Ok(args.or(file(&parser, &path)?)),
        None => Ok(args),
    }
}

/// The parser of the options, for one option at a time.
struct Parser(Command);

impl Parser {
    fn new() -> Self {
        let mut command = ServeArgs::augment_args(Command::new("option").no_binary_name(true));
        command.build();
        Self(command)
    }

    /// The names of the options that have a value: the others are for the command line only.
    fn names(&self) -> impl Iterator<Item = &str> {
        let valued = self.0.get_arguments().filter(|arg| arg.get_action().takes_values());
        valued.filter_map(|arg| arg.get_long())
    }

    /// One option with its values.
    fn read(&self, name: &str, values: &[String]) -> Result<ServeArgs, String> {
        let given = values.iter().map(|value| format!("--{name}={value}"));
        let parsed = self.0.clone().try_get_matches_from(given);
        parsed.and_then(|matches| ServeArgs::from_arg_matches(&matches)).map_err(|error| {
            // The place is named by the caller, so only what is wrong with the value.
            match std::error::Error::source(&error) {
                Some(why) => why.to_string(),
                None => one_line(&error),
            }
        })
    }
}

/// What `TIDEGATE_...` variables say. Variables of other names are none of our business: a container's
/// environment is full of them.
fn environment(parser: &Parser) -> Result<ServeArgs, String> {
    let mut args = ServeArgs::default();
    for name in parser.names() {
        let variable = format!("TIDEGATE_{}", name.to_uppercase().replace('-', "_"));
        let Some(value) = std::env::var_os(&variable) else {
            continue;
        };
        let value = value.into_string().map_err(|_| format!("{variable} is not text in UTF-8"))?;
        // Files made on Windows, and tools that read them by lines, leave line ends behind.
        let value = value.trim_end_matches(['\r', '\n']);
        if value.is_empty() {
            continue;
        }
        let said = parser.read(name, &[value.to_owned()]).map_err(|why| format!("{variable}: {why}"))?;
        args = args.or(said);
    }
    Ok(args)
}

/// What the configuration file says.
fn file(parser: &Parser, path: &Path) -> Result<ServeArgs, String> {
    let told = |why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
    let text = read(path).map_err(|why| told(&why))?;
    let table: toml::Table = toml::from_str(&text).map_err(|error| told(&wrong_toml(&text, &error)))?;
    let (mut args, mut own) = (ServeArgs::default(), Vec::new());
    for (key, value) in &table {
        if key == LISTENER {
            own = listeners(parser, value).map_err(|why| told(&why))?;
            continue;
        }
        if key == "config" || !parser.names().any(|name| name == key) {
            return Err(told(&format!("`{key}` is not an option: `tidegate --help` lists them")));
        }
        args = with(args, parser, key, value).map_err(|why| told(&why))?;
    }
    args.listeners = own;
    Ok(args)
}

/// One more key with its value.
fn with(args: ServeArgs, parser: &Parser, key: &str, value: &toml::Value) -> Result<ServeArgs, String> {
    let values = values(value).map_err(|why| format!("`{key}` {why}"))?;
    let said = parser.read(key, &values).map_err(|why| format!("`{key}`: {why}"))?;
    Ok(args.or(said))
}

/// The `[[listener]]` tables.
fn listeners(parser: &Parser, value: &toml::Value) -> Result<Vec<ServeArgs>, String> {
    let form = || format!("`{LISTENER}` must be a table with `listen`: write [[{LISTENER}]]");
    let tables = value.as_array().ok_or_else(form)?;
    let tables = tables.iter().enumerate().map(|(index, table)| {
        let mut args = ServeArgs::default();
        for (key, value) in table.as_table().ok_or_else(form)? {
            let why = match own(parser, key) {
                Ok(()) => with(args.clone(), parser, key, value).map(|with| args = with).err(),
                Err(why) => Some(why),
            };
            if let Some(why) = why {
                return Err(format!("[[{LISTENER}]] number {}: {why}", index + 1));
            }
        }
        if args.listen.is_empty() {
            return Err(format!("[[{LISTENER}]] number {} has no `listen`: it says where", index + 1));
        }
        Ok(args)
    });
    tables.collect()
}

/// Whether a listener can have a key of its own.
fn own(parser: &Parser, key: &str) -> Result<(), String> {
    let of_its_own = TABLE.iter().any(|limit| limit.per_listener && limit.name == key);
    let of_a_service = gate_options::NAMES.contains(&key) || web_options::NAMES.contains(&key);
    let of_a_service = of_a_service || tls_options::NAMES.contains(&key);
    if of_its_own || of_a_service || matches!(key, "listen" | "busy-reply" | "socket-mode") {
        return Ok(());
    }
    if parser.names().any(|name| name == key) {
        return Err(format!(
            "`{key}` is the same for all listeners: write it above the first [[{LISTENER}]]"
        ));
    }
    Err(format!("`{key}` is not an option: `tidegate --help` lists them"))
}

fn read(path: &Path) -> Result<String, String> {
    // Non-blocking, since opening a FIFO waits for a program that writes to it.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let file =
        rustix::fs::open(path, flags, Mode::empty()).map_err(|error| io::Error::from(error).to_string())?;
    let text = read_within(&File::from(file), SILENCE_MAX)?;
    if text.len() as u64 > SIZE_MAX {
        return Err(format!("it has more than {SIZE_MAX} bytes, the most a configuration may have"));
    }
    String::from_utf8(text).map_err(|_| "it is not text in UTF-8".to_owned())
}

/// Reads to the end, or to one byte more than [`SIZE_MAX`]; a pipe that is silent for this time is an error.
fn read_within(mut file: &File, silence_max: Duration) -> Result<Vec<u8>, String> {
    // Not by its size, which a device does not have.
    let is_pipe = file.metadata().is_ok_and(|metadata| metadata.file_type().is_fifo());
    let (mut text, mut buffer, mut heard) = (Vec::new(), [0; 8192], Instant::now());
    let mut writer_seen = false;
    while text.len() as u64 <= SIZE_MAX {
        match file.read(&mut buffer) {
            // The end; or, of a pipe, that no program has it open for writing yet.
            Ok(0) if !is_pipe || writer_seen => break,
            Ok(0) => {}
            Ok(n) => {
                text.extend_from_slice(&buffer[..n]);
                (writer_seen, heard) = (true, Instant::now());
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => writer_seen = true,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.to_string()),
        }
        if heard.elapsed() >= silence_max {
            return Err(format!("nothing was written to it for {}", show_time(silence_max)));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(text)
}

/// What is wrong with a text that is not TOML, and in which line.
fn wrong_toml(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.bytes().filter(|&byte| byte == b'\n').count() + 1;
    let message = error.message().to_string();
    format!("line {line}: {}", message.lines().next().unwrap_or_default())
}

/// A value as the texts that the command line would have: several for a list.
fn values(value: &toml::Value) -> Result<Vec<String>, &'static str> {
    match value {
        toml::Value::Array(list) => list.iter().map(scalar).collect(),
        one => Ok(vec![scalar(one)?]),
    }
}

fn scalar(value: &toml::Value) -> Result<String, &'static str> {
    match value {
        toml::Value::String(text) => Ok(text.clone()),
        toml::Value::Integer(number) => Ok(number.to_string()),
        toml::Value::Float(number) => Ok(number.to_string()),
        toml::Value::Boolean(yes) => Ok(yes.to_string()),
        _ => Err("must be a number, a text, true, false, or a list of them"),
    }
}
