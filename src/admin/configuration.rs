//! `/configuration.json`: what the server was configured with and what is in force, for programs that compare configurations.

use crate::metrics::configuration;
use crate::metrics::process::ProcessSnapshot;
use crate::metrics::registry::VERSION;
use crate::metrics::snapshot::{ListenerSnapshot, Observe};
use serde_json::{Map, Value, json};

/// The form of the answer: it is another number if a reader of the old form would misunderstand the new one.
const FORMAT: u64 = 1;

/// The answer. `options` is what the program's command line, environment and file say, and null in a server that a library
/// configured.
pub(super) fn json(observe: &dyn Observe, process: &ProcessSnapshot) -> Vec<u8> {
    let ceilings = observe.ceilings();
    let limits = observe.limits().into_iter().map(|(name, value)| (name.to_owned(), value.into()));
    let head = json!({
        "format": FORMAT,
        "version": VERSION,
        "limits": limits.collect::<Map<String, Value>>(),
        "ceilings": {
            "connections": ceilings.connections, "workers": ceilings.workers, "datagrams": ceilings.datagrams,
            "listeners": ceilings.listeners,
        },
        "open_files": process.max_fds,
        "listeners": observe.snapshot().listeners.iter().map(listener).collect::<Vec<_>>(),
    });
    let options = configuration::options();
    let options = options.as_deref().unwrap_or("null");
    // The options are JSON already, of which nobody here needs to know anything.
    let head = head.to_string();
    let head = head.strip_suffix('}').unwrap_or(&head);
    format!("{head},\"options\":{options}}}\n").into_bytes()
}

fn listener(listener: &ListenerSnapshot) -> Value {
    let backends = listener.backends.iter().flat_map(|gate| &gate.backends);
    let backends: Vec<_> = backends.filter(|one| !one.leaving).map(|one| &one.address).collect();
    json!({
        "listener": listener.listener, "service": listener.service, "listening": !listener.is_closed,
        "backends": backends,
    })
}
