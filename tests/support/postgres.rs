//! A PostgreSQL of a test's own, and its clients.

use super::{Ending, Folder, command, eventually, finish};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// Ended with the test, and its data with it.
pub(crate) struct Postgres {
    programs: PathBuf,
    /// The server ends before its folder is removed.
    _server: Ending,
    _folder: Folder,
    pub(crate) port: u16,
}

impl Postgres {
    /// Starts it, and fills the tables that `pgbench` works on.
    #[track_caller]
    pub(crate) fn start() -> Self {
        let versions = std::fs::read_dir("/usr/lib/postgresql").expect("tests/setup.sh installs postgresql");
        let mut programs = versions.flatten().map(|version| version.path().join("bin"));
        let programs = programs.find(|bin| bin.join("postgres").exists()).expect("its server is installed");
        let folder = Folder::new("postgres");
        let root = folder.path("");
        assert!(command("chown").args(["postgres", &root]).status().unwrap().success());
        let data = folder.path("data");
        let made = finish(as_postgres(&programs, "initdb").args(["-D", &data, "-A", "trust", "-N"]));
        assert!(made.status.success(), "{made:?}");
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut server = as_postgres(&programs, "postgres");
        server.args(["-D", &data, "-p", &port.to_string(), "-k", &root, "-h", "127.0.0.1", "-F"]);
        let server = server.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let postgres = Self { programs, _server: Ending(server), _folder: folder, port };
        eventually("it accepts connections", || {
            let mut ask = command("psql");
            ask.args(postgres.to(port)).args(["-c", "select 1"]);
            finish(&mut ask).status.success().then_some(())
        });
        let filled = postgres.bench(port, &["-i", "-q"]);
        assert!(filled.status.success(), "{filled:?}");
        postgres
    }

    /// Runs its own load generator against this port.
    #[track_caller]
    pub(crate) fn bench(&self, port: u16, args: &[&str]) -> Output {
        finish(as_postgres(&self.programs, "pgbench").args(args).args(self.to(port)))
    }

    fn to(&self, port: u16) -> [String; 7] {
        let port = port.to_string();
        ["-h", "127.0.0.1", "-p", &port, "-U", "postgres", "postgres"].map(str::to_owned)
    }
}

/// PostgreSQL refuses to run as root.
fn as_postgres(programs: &std::path::Path, program: &str) -> Command {
    let mut all = command("setpriv");
    all.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(programs.join(program));
    all.current_dir("/");
    all
}
