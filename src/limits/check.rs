//! What must hold of limits before a server starts, and what follows from them.

use super::entry::Limit;
use super::{LimitError, LimitRow, Limits, TABLE, show_size};

impl Limits {
    /// Checks that each limit is in its range, and the relations between limits.
    pub fn check(&self) -> Result<(), LimitError> {
        TABLE.iter().try_for_each(|limit| limit.check(self))?;
        self.check_relations()
    }

    /// Checks the limits of one listener beside those of its server: only some can be its own.
    pub(crate) fn check_beside(&self, server: &Limits) -> Result<(), LimitError> {
        self.check()?;
        let differs =
            |limit: &&Limit<Limits>| !limit.per_listener && (limit.get)(self) != (limit.get)(server);
        if let Some(Limit { name, .. }) = TABLE.iter().find(differs) {
            return Err(LimitError(format!("{name} is the same for all listeners")));
        }
        let parts = [
            ("queue", self.queue, server.queue),
            ("max-connections", self.max_connections, server.max_connections),
        ];
        match parts.into_iter().find(|(_, own, all)| own > all) {
            Some((name, own, all)) => Err(LimitError(format!(
                "{name} is {own} here and {all} for all listeners together: a listener cannot have more than all"
            ))),
            None => Ok(()),
        }
    }

    /// What one listener has of these limits, which were made of its server's. One that says nothing of its queue has no more
    /// places in it than it may have connections.
    pub(crate) fn part_of(mut self, server: &Limits) -> Self {
        if self.queue == server.queue {
            self.queue = self.queue.min(self.max_connections);
        }
        self
    }

    /// Every relation that must hold between two limits.
    fn check_relations(&self) -> Result<(), LimitError> {
        let ensure = |holds: bool, why: &dyn Fn() -> String| {
            if holds { Ok(()) } else { Err(LimitError(why())) }
        };
        ensure(self.queue <= self.max_connections, &|| {
            format!(
                "queue is {} and max-connections is {}: newcomers that wait are connections too, so queue must not be larger",
                self.queue, self.max_connections
            )
        })?;
        ensure(self.connections_ceiling == 0 || self.max_connections <= self.connections_ceiling, &|| {
            format!(
                "max-connections is {} and connections-ceiling is {}: max-connections must not be larger",
                self.max_connections, self.connections_ceiling
            )
        })?;
        ensure(self.workers_ceiling == 0 || self.workers <= self.workers_ceiling, &|| {
            format!(
                "workers is {} and workers-ceiling is {}: workers must not be larger",
                self.workers, self.workers_ceiling
            )
        })?;
        // Room for a carriage return, and for the byte that shows that a line is too long.
        ensure(self.max_line + 2 <= self.input_total, &|| {
            format!(
                "max-line is {} and input-total is {}: input-total must be at least max-line and 2 bytes",
                show_size(self.max_line),
                show_size(self.input_total)
            )
        })?;
        ensure(self.max_line <= self.output_per_connection, &|| {
            format!(
                "max-line is {} and output-per-connection is {}: a reply as long as max-line must fit into output-per-connection",
                show_size(self.max_line),
                show_size(self.output_per_connection)
            )
        })?;
        ensure(self.output_per_connection <= self.output_total, &|| {
            format!(
                "output-per-connection is {} and output-total is {}: output-per-connection must not be larger",
                show_size(self.output_per_connection),
                show_size(self.output_total)
            )
        })
    }

    /// The most connections that there can be while the server serves, however the limits change.
    pub(crate) fn connections_most(&self) -> usize {
        self.max_connections.max(self.connections_ceiling)
    }

    /// The most listeners that there can be while the server serves, of one that starts with this number.
    pub(crate) fn listeners_most(&self, at_the_start: usize) -> usize {
        at_the_start.max(self.listeners_ceiling)
    }

    /// The most workers that there can be while the server serves, however the limits change.
    pub(crate) fn workers_most(&self) -> usize {
        self.workers.max(self.workers_ceiling)
    }

    /// The kernel's backlog while the queue does not stand, and while it does.
    pub fn backlogs(&self) -> (usize, usize) {
        match self.backlog {
            0 => (4096, self.queue.clamp(16, 128)),
            n => (n, n),
        }
    }

    /// The limits that are others here than in `other`, with the values that they have here.
    pub(crate) fn differing(&self, other: &Self) -> Vec<(&'static str, String)> {
        let differ = TABLE.iter().filter(|limit| (limit.get)(self) != (limit.get)(other));
        differ.map(|limit| (limit.name, limit.row(self).value)).collect()
    }

    /// A row for each limit, in the order of the options.
    pub fn table(&self) -> Vec<LimitRow> {
        TABLE.iter().map(|limit| limit.row(self)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::value::Value;
    use super::super::{Group, Overload, RefusalRate};
    use super::*;
    use std::time::Duration;

    #[test]
    fn defaults_hold_and_impossible_relations_do_not() {
        assert_eq!(Limits::default().check(), Ok(()));
        let wrong: [fn(&mut Limits); 16] = [
            |l| l.workers = 0,
            |l| l.max_connections = 0,
            |l| l.queue = 20_000,
            |l| l.workers_ceiling = 31,
            |l| l.connections_ceiling = 9_999,
            |l| l.source_prefix = (33, 128),
            |l| l.source_rate = f64::NAN,
            |l| l.refusal_rate = RefusalRate::PerSecond(f64::INFINITY),
            |l| l.worker_nice = 20,
            |l| l.busy_poll = Duration::from_secs(1),
            |l| l.output_per_connection = 100 << 20,
            |l| l.max_line = 2 << 20,
            |l| l.max_line = usize::MAX,
            |l| l.input_total = l.max_line + 1,
            |l| l.idle_timeout = Duration::ZERO,
            |l| l.overload = Overload::Wait(Duration::from_secs(400 * 86_400)),
        ];
        for change in wrong {
            let mut limits = Limits::default();
            change(&mut limits);
            assert!(limits.check().is_err(), "{limits:?}");
        }
    }

    #[test]
    fn the_error_names_the_limit_its_value_and_its_range() {
        let error = |limits: Limits| limits.check().unwrap_err().to_string();
        assert_eq!(error(Limits::default().workers(0)), "workers is 0: it must be from 1 to 4096");
        let limits = Limits::default().busy_poll(Duration::from_secs(1));
        assert_eq!(error(limits), "busy-poll is 1s: it must be from 0s to 10ms");
    }

    /// The entry of each limit is whole: the least and the most are in range, the field can be set, and it has a sentence.
    #[test]
    fn every_entry_of_the_table_is_whole() {
        for limit in TABLE {
            let name = limit.name;
            assert_eq!((limit.get)(&Limits::default()), limit.default, "{name}");
            for value in [limit.least, limit.most, limit.default] {
                assert!(value.within(limit.least, limit.most), "{name}: {value}");
                let mut limits = Limits::default();
                (limit.set)(&mut limits, value);
                assert_eq!((limit.get)(&limits), value, "{name}");
            }
            let sentence = limit.sentence();
            assert!(
                sentence.starts_with(char::is_uppercase) && !sentence.ends_with('.'),
                "{name}: {sentence}"
            );
            assert_eq!(name, name.to_lowercase().replace('_', "-"));
            assert!(limit.group != Group::Output, "{name}: no limit is about output");
        }
    }

    #[test]
    fn a_listener_has_some_limits_of_its_own_and_shares_the_others() {
        let server = Limits::default();
        let own = server.clone().idle_timeout(Duration::from_secs(1)).backlog(7);
        assert_eq!(own.check_beside(&server), Ok(()));
        let error = own.clone().workers(7).check_beside(&server).unwrap_err();
        assert_eq!(error.to_string(), "workers is the same for all listeners");
        assert!(own.idle_timeout(Duration::ZERO).check_beside(&server).is_err());
    }

    #[test]
    fn a_listener_has_a_part_of_what_its_server_has() {
        let server = Limits::default().queue(100).max_connections(1_000);
        let part = |own: Limits| own.part_of(&server);
        let own = part(server.clone().max_connections(1_000).queue(99).queue_timeout(Duration::from_secs(9)));
        assert_eq!((own.queue, own.max_connections, own.check_beside(&server)), (99, 1_000, Ok(())));
        let differing = own.differing(&server);
        assert_eq!(differing, [("queue", "99".to_owned()), ("queue-timeout", "9s".to_owned())]);
        assert_eq!(server.differing(&server), []);
        let few = part(server.clone().max_connections(30));
        assert_eq!((few.queue, few.check_beside(&server)), (30, Ok(())), "its queue follows");
        let error = |own: Limits| part(own).check_beside(&server).unwrap_err().to_string();
        let larger = |name, own, all| {
            format!(
                "{name} is {own} here and {all} for all listeners together: a listener cannot have more than all"
            )
        };
        assert_eq!(error(server.clone().queue(101)), larger("queue", 101, 100));
        let many = server.clone().max_connections(1_001);
        assert_eq!(error(many), larger("max-connections", 1_001, 1_000));
        let mixed = error(server.clone().max_connections(30).queue(31));
        assert!(mixed.starts_with("queue is 31 and max-connections is 30"), "{mixed}");
    }

    #[test]
    fn what_is_set_is_what_the_row_shows() {
        let limits = Limits::default().workers(7).busy_poll(Duration::ZERO).queue(20).backlog(0);
        let rows = limits.table();
        let shown = |name: &str| rows.iter().find(|row| row.name == name).unwrap().value.clone();
        assert_eq!([shown("workers"), shown("busy-poll"), shown("backlog")], ["7", "off", "auto"]);
        assert_eq!(Value::Count(20).to_string(), shown("queue"));
    }
}
