//! The configuration file: TOML whose keys are the options' names. A value from the file is read by
//! the option's own parser, and only where neither command line nor environment says something.

use super::args::ServeArgs;
use clap::{Args, Command, FromArgMatches};
use std::ffi::OsString;
use std::io::Read;
use std::path::Path;

/// A configuration file larger than this is a mistake.
const SIZE_MAX: u64 = 1024 * 1024;

/// Adds what the configuration file says to what command line and environment said.
pub(super) fn merge(args: ServeArgs) -> Result<ServeArgs, String> {
    let Some(path) = args.config.clone() else {
        return Ok(args);
    };
    let told = |why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
    let text = read(&path).map_err(|why| told(&why))?;
    let table: toml::Table = toml::from_str(&text).map_err(|error| told(&wrong_toml(&text, &error)))?;
    let mut command = ServeArgs::augment_args(Command::new("config").no_binary_name(true));
    command.build();
    let mut given: Vec<OsString> = Vec::new();
    for (key, value) in &table {
        let known = command.get_arguments().find(|arg| arg.get_long() == Some(key));
        if known.is_none() || matches!(key.as_str(), "config" | "verbose" | "quiet" | "help") {
            return Err(told(&format!("`{key}` is not an option: `tidegate --help` lists them")));
        }
        for text in values(value).map_err(|why| told(&format!("`{key}` {why}")))? {
            given.push(format!("--{key}={text}").into());
        }
    }
    let parsed = command.try_get_matches_from(given).map_err(|error| told(&first_line(&error)))?;
    let file = ServeArgs::from_arg_matches(&parsed).map_err(|error| told(&first_line(&error)))?;
    Ok(args.or(file))
}

/// The message of an error without its hints and its place in the text.
pub(super) fn first_line(error: &impl std::fmt::Display) -> String {
    let text = error.to_string();
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    line.trim_start_matches("error: ").to_owned()
}

fn read(path: &Path) -> Result<String, String> {
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let mut text = Vec::new();
    // Not by its size, which a device does not have.
    file.take(SIZE_MAX + 1).read_to_end(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > SIZE_MAX {
        return Err(format!("it has more than {SIZE_MAX} bytes, the most a configuration may have"));
    }
    String::from_utf8(text).map_err(|_| "it is not a text in UTF-8".to_owned())
}

/// What is wrong with a text that is not TOML, and in which line.
fn wrong_toml(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.bytes().filter(|&byte| byte == b'\n').count() + 1;
    format!("line {line}: {}", first_line(&error.message()))
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
        _ => Err("must be a number, a text, or a list of them"),
    }
}
