//! The options as they are written on the command line, in the environment and in the configuration file. The admin
//! endpoint shows them, so that `tidegate check --against` can find out what another file would change.

use super::file::{FilePlace, KeyLines, LISTENER};
use serde_json::{Value, json};

/// The name of an option and its values.
pub(super) type OptionTexts = (String, Vec<String>);

/// What each source says, the one that comes first first.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct OptionSources {
    pub(super) command_line: Vec<OptionTexts>,
    pub(super) environment: Vec<OptionTexts>,
    pub(super) file: Option<toml::Table>,
    /// Where its keys are in the file, if it was read here.
    pub(super) lines: KeyLines,
}

impl OptionSources {
    /// What is said of an option above all tables of listeners.
    pub(super) fn said(&self, name: &str) -> Option<String> {
        let of = |texts: &[OptionTexts]| {
            texts.iter().find(|(option, _)| option == name).map(|(_, values)| values.join(","))
        };
        let in_file = || values(self.file.as_ref()?.get(name)?).ok().map(|values| values.join(","));
        of(&self.command_line).or_else(|| of(&self.environment)).or_else(in_file)
    }

    /// An error with the file and the line before it, if it is about something that the file says.
    pub(super) fn located(&self, why: &str) -> String {
        let place = self.file.as_ref().and_then(|file| self.lines.place(&self.subject(file, why)?));
        place.map_or_else(|| why.to_owned(), |place| format!("{place}: {why}"))
    }

    /// What in the file an error is about, by the names that it says.
    fn subject(&self, file: &toml::Table, why: &str) -> Option<FilePlace> {
        let names =
            || why.split(|c: char| !(c.is_ascii_lowercase() || c == '-')).filter(|word| word.len() > 1);
        let listener = why.strip_prefix("listener ").and_then(|rest| match rest.strip_prefix('`') {
            Some(text) => text.split_once('`'),
            None => rest.split_once(": "),
        });
        let Some((listener, _)) = listener else {
            let elsewhere = [&self.command_line, &self.environment];
            let is_here = |name: &&str| {
                file.contains_key(*name) && !elsewhere.into_iter().flatten().any(|(known, _)| known == name)
            };
            return Some(FilePlace { table: None, key: Some(names().find(is_here)?.to_owned()) });
        };
        let has = |table: &toml::Table| {
            let listen = table.get("listen").and_then(|listen| values(listen).ok()).unwrap_or_default();
            listen.iter().any(|text| text.contains(listener))
        };
        let tables = file.get(LISTENER).and_then(toml::Value::as_array);
        let mut tables = tables.into_iter().flatten().filter_map(toml::Value::as_table).enumerate();
        let (table, of_table) = match tables.find(|(_, table)| has(table)) {
            Some((index, table)) => (Some(index), table),
            None => has(file).then_some((None, file))?,
        };
        let own = || names().find(|name| of_table.contains_key(*name));
        let key = table.and_then(|_| own()).unwrap_or("listen");
        Some(FilePlace { table, key: Some(key.to_owned()) })
    }

    pub(super) fn to_json(&self) -> String {
        let texts = |texts: &[OptionTexts]| -> Value {
            texts.iter().map(|(name, values)| (name.clone(), json!(values))).collect()
        };
        json!({
            "command_line": texts(&self.command_line),
            "environment": texts(&self.environment),
            "file": self.file,
        })
        .to_string()
    }

    /// Reads what [`to_json`](Self::to_json) wrote.
    pub(super) fn from_json(value: &Value) -> Option<Self> {
        let texts = |name: &str| {
            let said = value.get(name)?.as_object()?.iter().map(|(name, values)| {
                let values = values.as_array()?.iter().map(|value| Some(value.as_str()?.to_owned()));
                Some((name.clone(), values.collect::<Option<Vec<_>>>()?))
            });
            said.collect::<Option<Vec<OptionTexts>>>()
        };
        let file = match value.get("file")? {
            Value::Null => None,
            table => Some(toml::Table::try_from(table).ok()?),
        };
        let (command_line, environment) = (texts("command_line")?, texts("environment")?);
        Some(Self { command_line, environment, file, lines: KeyLines::default() })
    }
}

/// A value as the texts that the command line would have: several for a list.
pub(super) fn values(value: &toml::Value) -> Result<Vec<String>, &'static str> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again_and_comes_to_the_same() {
        let file = "queue = 7\nlisten = [\"echo=tcp://h:1\", \"time=udp://h:2\"]\nready-needs-backend = true\n\
                    [[listener]]\nlisten = \"hello=tcp://h:3\"\nidle-timeout = \"5s\"\n";
        let texts = |name: &str, value: &str| vec![(name.to_owned(), vec![value.to_owned()])];
        let sources = OptionSources {
            command_line: texts("workers", "3"),
            environment: texts("queue", "9"),
            file: Some(toml::from_str(file).unwrap()),
            ..OptionSources::default()
        };
        let again = OptionSources::from_json(&serde_json::from_str(&sources.to_json()).unwrap()).unwrap();
        assert_eq!(again, sources);
        assert_eq!(sources.said("queue").as_deref(), Some("9"));
        assert_eq!(sources.said("listen").as_deref(), Some("echo=tcp://h:1,time=udp://h:2"));
        assert_eq!(sources.said("max-line"), None);
        for wrong in ["{}", "[]", "{\"command_line\":{\"queue\":3},\"environment\":{},\"file\":null}"] {
            assert_eq!(OptionSources::from_json(&serde_json::from_str(wrong).unwrap()), None, "{wrong}");
        }
        let nothing = OptionSources::default();
        assert_eq!(
            OptionSources::from_json(&serde_json::from_str(&nothing.to_json()).unwrap()),
            Some(nothing)
        );
    }
}
