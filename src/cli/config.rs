//! The environment and the configuration file, from which options come besides the command line. Their values are read
//! by the option's own parser.

use super::args::{CheckArgs, ServeArgs};
use super::exit::one_line;
use super::file::{self, FileMistake, FilePlace, LISTENER};
use super::sources::{OptionSources, OptionTexts, values};
use super::{gate_options, tls_options, web_options};
use crate::limits::TABLE;
use clap::error::{ContextKind, ContextValue};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, Args, Command, FromArgMatches};
use std::sync::Arc;

/// Adds what the environment and the configuration file say to what the command line said.
pub(super) fn merge(args: ServeArgs) -> Result<ServeArgs, String> {
    let parser = Parser::new();
    let environment = variables(&parser)?;
    let args = args.or(environment_args(&parser, &environment)?);
    let file = args.config.as_deref().map(file::table).transpose()?;
    let (of_file, file, lines) = match file {
        Some((table, lines)) => {
            let args = file_args(&parser, &table);
            let args = args.map_err(|mistake| lines.told(&mistake))?;
            (args, Some(table), lines)
        }
        None => Default::default(),
    };
    let command_line = command_line();
    let sources = Arc::new(OptionSources { command_line, environment, file, lines });
    Ok(ServeArgs { sources: Some(sources), ..args.or(of_file) })
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
        self.valued().filter_map(|arg| arg.get_long())
    }

    /// Those options.
    fn valued(&self) -> impl Iterator<Item = &Arg> {
        self.0.get_arguments().filter(|arg| arg.get_action().takes_values())
    }

    /// The option that somebody probably meant by this name.
    fn meant(&self, name: &str) -> Option<String> {
        let error = self.0.clone().try_get_matches_from([format!("--{name}=")]).err()?;
        match error.get(ContextKind::SuggestedArg)? {
            ContextValue::String(option) => Some(option.trim_start_matches('-').to_owned()),
            _ => None,
        }
    }

    /// What is said of a key that is no option.
    fn unknown(&self, key: &str) -> String {
        match self.meant(key).filter(|_| key != "config") {
            Some(option) => format!("`{key}` is not an option: did you mean `{option}`?"),
            None => format!("`{key}` is not an option: `tidegate --help` lists them"),
        }
    }

    /// Whether an option takes a list as one text with commas.
    fn lists(&self, name: &str) -> bool {
        let arg = self.valued().find(|arg| arg.get_long() == Some(name));
        let arg = arg.filter(|arg| matches!(arg.get_action(), ArgAction::Set));
        arg.and_then(Arg::get_value_names).is_some_and(|names| names.iter().any(|name| name.contains(",...")))
    }

    /// One option with its values. In a file a list may be written as one.
    fn read(&self, name: &str, values: &[String]) -> Result<ServeArgs, String> {
        let joined = (values.len() > 1 && self.lists(name)).then(|| [values.join(",")]);
        let values = joined.as_ref().map_or(values, |joined| joined.as_slice());
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

impl Parser {
    /// What is said of this variable, if it begins like ours and is none.
    fn unknown_variable(&self, name: &str) -> Option<String> {
        let option = name.strip_prefix("TIDEGATE_")?.to_lowercase().replace('_', "-");
        if self.names().any(|known| known == option) {
            return None;
        }
        Some(match (option.as_str(), self.meant(&option)) {
            ("verbose" | "quiet", _) => {
                format!(
                    "{name} is ignored: --{option} is for the command line only, write TIDEGATE_LOG_LEVEL"
                )
            }
            (_, Some(meant)) => format!("{name} is ignored: did you mean {}?", variable(&meant)),
            _ => format!("{name} is ignored: no option has this variable"),
        })
    }
}

/// The names of the options that have a value.
#[cfg(test)]
pub(super) fn option_names() -> Vec<String> {
    Parser::new().names().map(str::to_owned).collect()
}

/// The environment variable of an option.
pub(super) fn variable(name: &str) -> String {
    format!("TIDEGATE_{}", name.to_uppercase().replace('-', "_"))
}

/// What `TIDEGATE_...` variables say, by the names of the options.
fn variables(parser: &Parser) -> Result<Vec<OptionTexts>, String> {
    let mut said = Vec::new();
    for name in parser.names() {
        let variable = variable(name);
        let Some(value) = std::env::var_os(&variable) else {
            continue;
        };
        let value = value.into_string().map_err(|_| format!("{variable} is not text in UTF-8"))?;
        // Files made on Windows, and tools that read them by lines, leave line ends behind.
        let value = value.trim_end_matches(['\r', '\n']);
        if !value.is_empty() {
            said.push((name.to_owned(), vec![value.to_owned()]));
        }
    }
    Ok(said)
}

/// What is said of variables that begin like ours and are none.
pub(super) fn unknown_variables() -> Vec<String> {
    let parser = Parser::new();
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let mut unknown: Vec<_> = names.filter(|name| !is_of_a_service(name)).collect();
    unknown.sort_unstable();
    unknown.iter().filter_map(|variable| parser.unknown_variable(variable)).collect()
}

/// Whether Kubernetes sets a variable of this name for a service that is called `tidegate`, or begins like that.
fn is_of_a_service(variable: &str) -> bool {
    let ends =
        ["_PORT", "_SERVICE_HOST", "_TCP", "_UDP", "_TCP_ADDR", "_TCP_PROTO", "_UDP_ADDR", "_UDP_PROTO"];
    ends.iter().any(|end| variable.ends_with(end))
        || variable.contains("_SERVICE_PORT_")
        || variable == crate::cli::live::handed::HANDOVER
}

/// What they come to.
fn environment_args(parser: &Parser, environment: &[OptionTexts]) -> Result<ServeArgs, String> {
    environment.iter().try_fold(ServeArgs::default(), |args, (name, values)| {
        let said = parser.read(name, values).map_err(|why| format!("{}: {why}", variable(name)))?;
        Ok(args.or(said))
    })
}

/// What the table of a configuration file says.
fn file_args(parser: &Parser, table: &toml::Table) -> Result<ServeArgs, FileMistake> {
    let (mut args, mut own) = (ServeArgs::default(), Vec::new());
    for (key, value) in table {
        if key == LISTENER {
            own = listeners(parser, value)?;
            continue;
        }
        let place = FilePlace { table: None, key: Some(key.clone()) };
        let said = match key == "config" || !parser.names().any(|name| name == key) {
            true => Err(parser.unknown(key)),
            false => with(args.clone(), parser, key, value),
        };
        args = said.map_err(|why| FileMistake { place, why })?;
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
fn listeners(parser: &Parser, value: &toml::Value) -> Result<Vec<ServeArgs>, FileMistake> {
    let mistake = |table: Option<usize>, key: Option<&str>, why: String| FileMistake {
        place: FilePlace { table, key: key.map(str::to_owned) },
        why,
    };
    let form = || format!("`{LISTENER}` must be a table with `listen`: write [[{LISTENER}]]");
    let tables = value.as_array().ok_or_else(|| mistake(None, Some(LISTENER), form()))?;
    let tables = tables.iter().enumerate().map(|(index, table)| {
        let mut args = ServeArgs::default();
        let table = table.as_table().ok_or_else(|| mistake(None, Some(LISTENER), form()))?;
        for (key, value) in table {
            let said = own(parser, key).and_then(|()| with(args.clone(), parser, key, value));
            args = said.map_err(|why| mistake(Some(index), Some(key), why))?;
        }
        if args.listen.is_empty() {
            let why =
                "this [[listener]] has no `listen`: write one like listen = \"echo=tcp://127.0.0.1:5000\"";
            return Err(mistake(Some(index), None, why.to_owned()));
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
    Err(parser.unknown(key))
}

/// What the command line of this process says, of the options that have a value.
fn command_line() -> Vec<OptionTexts> {
    let command = |name: &'static str| ServeArgs::augment_args(Command::new(name));
    let check = CheckArgs::augment_args(Command::new("check"));
    let whole = command("tidegate").args_conflicts_with_subcommands(true);
    let whole = whole.subcommand(command("serve")).subcommand(check);
    // Other commands serve nobody.
    let Ok(matches) = whole.try_get_matches_from(std::env::args_os()) else {
        return Vec::new();
    };
    let matches = matches.subcommand().map_or(&matches, |(_, of_serve)| of_serve);
    let parser = Parser::new();
    let said = parser.valued().filter_map(|arg| {
        let id = arg.get_id().as_str();
        if matches.value_source(id) != Some(ValueSource::CommandLine) {
            return None;
        }
        let values = matches.get_raw(id)?.map(|value| value.to_string_lossy().into_owned());
        Some((arg.get_long()?.to_owned(), values.collect()))
    });
    // Where the file is says nothing of what it says.
    said.filter(|(name, _)| name != "config").collect()
}

/// The options that sources come to, of this process or of another.
pub(super) fn options_of(sources: &OptionSources) -> Result<ServeArgs, String> {
    let parser = Parser::new();
    let of_file = match &sources.file {
        Some(table) => file_args(&parser, table).map_err(|mistake| sources.lines.told(&mistake))?,
        None => ServeArgs::default(),
    };
    let command_line =
        sources.command_line.iter().try_fold(ServeArgs::default(), |args, (name, values)| {
            let said = parser.read(name, values).map_err(|why| format!("--{name}: {why}"))?;
            Ok::<_, String>(args.or(said))
        })?;
    Ok(command_line.or(environment_args(&parser, &sources.environment)?).or(of_file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sources_of_another_process_come_to_its_options() {
        let texts = |name: &str, value: &str| vec![(name.to_owned(), vec![value.to_owned()])];
        let file = "queue = 7\nmax-line = \"1KiB\"\nlisten = [\"echo=tcp://h:1\", \"time=udp://h:2\"]\n\
                    [[listener]]\nlisten = \"hello=tcp://h:3\"\n";
        let mut sources = OptionSources {
            command_line: texts("workers", "3"),
            environment: texts("queue", "9"),
            file: Some(toml::from_str(file).unwrap()),
            ..OptionSources::default()
        };
        let args = options_of(&sources).unwrap();
        let limits = args.limits.applied_to(crate::Limits::default());
        assert_eq!((limits.workers, limits.queue, limits.max_line), (3, 9, 1024));
        assert_eq!((args.listen.len(), args.listeners.len()), (2, 1));
        sources.environment = texts("queue", "many");
        let why = options_of(&sources).unwrap_err();
        assert!(why.starts_with("TIDEGATE_QUEUE: "), "{why}");
    }
}
