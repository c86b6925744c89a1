//! Values as people type them, and as programs hold them.
//!
//! A command line, a configuration file and a report all show the same few kinds of value: a time (`10s`), a size
//! (`64KiB`), a rate (`500/s`), a count (`10k`), bytes with escapes (`hello\n`), the URL of a service
//! (`tcp://127.0.0.1:5000`). This crate turns each text into its value, and each value back into a text that is
//! read as the same value. It prints nothing and needs no command-line parser.
//!
//! ```
//! use std::time::Duration;
//! use tidegate_units as units;
//!
//! assert_eq!(units::duration("1.5s"), Ok(Duration::from_millis(1500)));
//! assert_eq!(units::show_time(Duration::from_millis(1500)), "1500ms");
//! assert_eq!(units::size("64KiB"), Ok(65_536));
//! assert_eq!(units::rate("10k/s"), Ok(10_000.0));
//! assert_eq!(units::unescape(r"hello\n"), Ok(b"hello\n".to_vec()));
//! let url: units::url::Url = "http://localhost/status".parse()?;
//! assert_eq!((url.port, url.path.as_str()), (80, "/status"));
//! # Ok::<(), units::url::UrlError>(())
//! ```
//!
//! Every error is one sentence for a person: it repeats the text and says what to write instead.

mod bounded;
mod escapes;
pub mod url;
mod values;

pub use bounded::{is_stdin, open_in_time, read_bounded};
pub use escapes::{Visible, unescape, visible};
pub use values::{
    LONGEST, SHORTEST, count, counted, duration, positive, rate, show_size, show_time, size, wait,
};
