//! Replaces the program by a newer one without losing a connection. The new program is started with the listening
//! sockets. When it reports that it serves, the old one stops accepting, and ends when its clients have left.

use super::handed::{HANDOVER, Handover, NumberedSocket};
use super::notify::Supervisor;
use crate::server::{BoundSocket, Handle, LeavingSocket};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{FdFlags, fcntl_setfd};
use std::collections::BTreeSet;
use std::env;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// An order to end comes first: it is looked for this often.
const LOOK: Duration = Duration::from_millis(250);
/// How long the new program has until it serves.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// What it may say at most.
const ANSWER_MAX: usize = 4096;
/// The word for "I serve"; the numbers of the sockets that it did not want follow.
const READY: &str = "ready";

/// How this program was started: its file, as it was named, and its arguments.
#[derive(Debug)]
pub(crate) struct StartedFrom {
    /// Or why the system does not tell: `/proc` is not there, say.
    program: Result<PathBuf, String>,
}

impl StartedFrom {
    /// Ask at the start: a file that is replaced later has the same name.
    pub(crate) fn now() -> Self {
        // By the name it was called by, which may be a link that is changed to lead to the new version.
        let called = env::args_os().next().map(PathBuf::from);
        let called = called.filter(|called| called.components().count() > 1);
        let called = called.and_then(|called| Some(env::current_dir().ok()?.join(called)));
        let program = match called.filter(|called| called.is_file()) {
            Some(program) => Ok(program),
            None => env::current_exe().map_err(|error| error.to_string()),
        };
        Self { program }
    }
}

/// What is to be handed over.
pub(super) struct Estate<'a> {
    pub(super) started: &'a StartedFrom,
    pub(super) handle: &'a Handle,
    pub(super) supervisor: &'a Supervisor,
    /// What each listener was configured as, in the order of the server's listeners.
    pub(super) texts: &'a [String],
    /// The sockets of the admin endpoint and the agent, by their names.
    pub(super) beside: io::Result<Vec<(&'static str, OwnedFd)>>,
    /// Ends those two here.
    pub(super) end_beside: &'a dyn Fn(),
}

/// Starts the program again, hands the sockets over, and drains this one; the number of the new process. When that fails,
/// nothing has changed, and the text says why.
pub(super) fn upgrade(estate: Estate<'_>) -> Result<u32, String> {
    if std::process::id() == 1 {
        return Err("this is process 1 of a container, which ends with it: start a new container".to_owned());
    }
    let Estate { started, handle, supervisor, texts, beside, end_beside } = estate;
    let ends = || !handle.takes_newcomers();
    if ends() {
        return Err(ENDS.to_owned());
    }
    let program =
        started.program.as_ref().map_err(|why| format!("its program file cannot be found: {why}"))?;
    let sockets = sockets(handle, texts, beside)
        .map_err(|error| format!("the sockets cannot be handed over: {error}"))?;
    let (mut child, pipe) = start(program, &sockets)
        .map_err(|error| format!("the new program {} cannot be started: {error}", program.display()))?;
    let unwanted = match wait_until_ready(&pipe, &ends) {
        Ok(unwanted) => unwanted,
        Err(why) => return Err(give_up(&mut child, why)),
    };
    supervisor.main_process(child.id());
    // The next question of a scraper or a balancer goes to the new one.
    end_beside();
    let wanted: BTreeSet<Option<usize>> = (sockets.iter().enumerate())
        .filter(|(number, _)| !unwanted.contains(number))
        .map(|(_, socket)| socket.position)
        .collect();
    handle.hand_over(|position| wanted.contains(&Some(position)));
    Ok(child.id())
}

/// A socket to hand over.
struct Leaving {
    name: String,
    /// Of the listener that it belongs to.
    position: Option<usize>,
    socket: OwnedFd,
    bound: BoundSocket,
}

fn sockets(
    handle: &Handle,
    texts: &[String],
    beside: io::Result<Vec<(&'static str, OwnedFd)>>,
) -> io::Result<Vec<Leaving>> {
    let mut sockets = Vec::new();
    for (position, socket) in handle.sockets()?.into_iter().enumerate() {
        if let (Some(socket), Some(name)) = (socket, texts.get(position)) {
            let LeavingSocket { socket, bound } = socket;
            sockets.push(Leaving { name: name.clone(), position: Some(position), socket, bound });
        }
    }
    for (name, socket) in beside? {
        sockets.push(Leaving {
            name: name.to_owned(),
            position: None,
            socket,
            bound: BoundSocket::default(),
        });
    }
    Ok(sockets)
}

/// Starts the program; the end of the pipe on which it will say that it serves.
fn start(program: &Path, sockets: &[Leaving]) -> io::Result<(Child, File)> {
    let (ours, theirs) = io::pipe()?;
    let (ours, theirs) = (OwnedFd::from(ours), OwnedFd::from(theirs));
    let numbered = |leaving: &Leaving| NumberedSocket {
        number: leaving.socket.as_raw_fd(),
        name: leaving.name.clone(),
        bound: leaving.bound,
    };
    let handover = Handover { pipe: theirs.as_raw_fd(), sockets: sockets.iter().map(numbered).collect() };
    // Nothing else is started by this program, so nobody else gets them.
    for socket in sockets.iter().map(|leaving| &leaving.socket).chain([&theirs]) {
        fcntl_setfd(socket, FdFlags::empty())?;
    }
    let mut command = Command::new(program);
    command.args(env::args_os().skip(1)).env(HANDOVER, handover.to_text());
    for of_this_process in ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID"] {
        command.env_remove(of_this_process);
    }
    Ok((command.spawn()?, ours.into()))
}

/// Why nothing takes the place of this program.
const ENDS: &str = "it has been told to end";

/// Waits for the new program, unless this one `ends` meanwhile; the numbers of the sockets that it did not want.
fn wait_until_ready(mut pipe: &File, ends: &dyn Fn() -> bool) -> Result<BTreeSet<usize>, String> {
    let until = Instant::now() + READY_WITHIN;
    let mut said = Vec::new();
    while !said.ends_with(b"\n") && said.len() < ANSWER_MAX {
        let left = until.saturating_duration_since(Instant::now());
        let time = Timespec::try_from(left.min(LOOK)).map_err(|_| "the clock cannot say how long to wait")?;
        let polled = poll(&mut [PollFd::new(&pipe.as_fd(), PollFlags::IN)], Some(&time));
        if ends() {
            return Err(ENDS.to_owned());
        }
        match polled {
            Ok(0) if left > LOOK => continue,
            Ok(0) => return Err(format!("it does not serve after {} s", READY_WITHIN.as_secs())),
            Ok(_) => {}
            Err(_) => continue,
        }
        let mut piece = [0; 256];
        match pipe.read(&mut piece) {
            Ok(0) => return Err("it has ended".to_owned()),
            Ok(n) => said.extend_from_slice(&piece[..n]),
            Err(error) => return Err(error.to_string()),
        }
    }
    let said = String::from_utf8_lossy(&said);
    let mut words = said.split_whitespace();
    match words.next() {
        Some(READY) => Ok(words.filter_map(|word| word.parse().ok()).collect()),
        _ => Err("it does not say that it serves".to_owned()),
    }
}

/// The new program did not come to serve: it is ended, if it has not ended by itself.
fn give_up(child: &mut Child, why: String) -> String {
    // One that has ended by itself says more by its exit code, in the moment that its end takes.
    let until = Instant::now() + Duration::from_secs(1);
    while Instant::now() < until {
        if let Ok(Some(status)) = child.try_wait() {
            return format!("the new program does not serve: {status}; the end of its output says why");
        }
        if !why.contains("ended") {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let _ = child.kill();
    let _ = child.wait();
    format!("the new program does not serve: {why}")
}

/// Tells the program that this one takes the place of that this one serves.
pub(crate) fn tell_predecessor(pipe: OwnedFd, unwanted: impl Iterator<Item = usize>) {
    let unwanted = unwanted.map(|number| format!(" {number}")).collect::<String>();
    if let Err(error) = File::from(pipe).write_all(format!("{READY}{unwanted}\n").as_bytes()) {
        tracing::warn!(%error, "the program that was to be replaced cannot be told, and goes on");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(words: &str) -> Result<BTreeSet<usize>, String> {
        let (ours, theirs) = rustix::pipe::pipe().unwrap();
        File::from(theirs).write_all(words.as_bytes()).unwrap();
        wait_until_ready(&ours.into(), &|| false)
    }

    #[test]
    fn the_new_program_says_that_it_serves_and_what_it_did_not_want() {
        assert_eq!(said("ready\n"), Ok(BTreeSet::new()));
        assert_eq!(said("ready 0 7\n"), Ok(BTreeSet::from([0, 7])));
        assert_eq!(said(""), Err("it has ended".to_owned()));
        assert_eq!(said("ready"), Err("it has ended".to_owned()));
        assert!(said("what\n").is_err());
    }
}
