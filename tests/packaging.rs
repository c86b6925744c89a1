//! What is shipped beside the program: the Debian package in a fresh system, the image's steps, and the manifests for
//! Kubernetes.
#![cfg(target_os = "linux")]

mod support;

use rustix::process::Signal;
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use support::{Client, Folder, Running, command, eventually, finish, path};

const HOME: &str = env!("CARGO_MANIFEST_DIR");

/// What a command says on stdout; it must succeed.
#[track_caller]
fn said(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = finish(command);
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{command:?}: {status}: {stdout}{stderr}");
    stdout.into_owned()
}

/// A fresh system, which tests/setup.sh has made with debootstrap.
struct System {
    folder: Folder,
}

impl System {
    fn fresh(name: &str) -> Self {
        let folder = Folder::new(name);
        let archive = format!("{HOME}/target/test-chroot.tar");
        assert!(Path::new(&archive).exists(), "tests/setup.sh makes {archive}; this test needs root");
        said(command("tar").args(["-xf", &archive, "-C"]).arg(&folder.0));
        Self { folder }
    }

    /// A command inside.
    fn inside(&self, user: &str) -> Command {
        let mut inside = command("chroot");
        inside.arg(format!("--userspec={user}")).arg(&self.folder.0);
        inside.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C");
        inside.env("DEBIAN_FRONTEND", "noninteractive");
        inside
    }

    #[track_caller]
    fn dpkg(&self, args: &[&str]) -> String {
        said(self.inside("root:root").arg("dpkg").args(args))
    }

    fn has(&self, file: &str) -> bool {
        self.folder.0.join(file.trim_start_matches('/')).symlink_metadata().is_ok()
    }

    fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.folder.0.join(file.trim_start_matches('/'))).unwrap_or_default()
    }

    /// Everything with the program's name, but for what the package manager notes for itself.
    fn traces(&self) -> String {
        said(command("find").arg(&self.folder.0).args(["-iname", "*tidegate*"]))
    }
}

/// Starts the program inside, and waits until it serves.
#[track_caller]
fn serving(mut inside: Command) -> Running {
    let running = Running::of(inside.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    eventually("it serves", || {
        assert!(running.is_running(), "it ended: {}", running.stderr());
        running.stdout().contains("limits:").then_some(())
    });
    running
}

/// The package of the program under test.
fn package(folder: &Folder) -> String {
    let script = format!("{HOME}/packaging/debian/build.sh");
    let said = said(command("bash").arg(script).arg(&folder.0).arg(path()));
    said.lines().last().expect("the package's path").to_owned()
}

const SHIPPED: [&str; 9] = [
    "/usr/bin/tidegate",
    "/etc/tidegate/tidegate.toml",
    "/lib/systemd/system/tidegate.service",
    "/lib/systemd/system/tidegate.socket",
    "/usr/share/man/man1/tidegate-serve.1.gz",
    "/usr/share/bash-completion/completions/tidegate",
    "/usr/share/zsh/vendor-completions/_tidegate",
    "/usr/share/fish/vendor_completions.d/tidegate.fish",
    "/usr/share/doc/tidegate/copyright",
];

#[test]
fn the_debian_package_installs_runs_and_purges_in_a_fresh_system() {
    let (made, system) = (Folder::new("deb"), System::fresh("system"));
    let package = package(&made);
    std::fs::copy(&package, system.folder.0.join("tidegate.deb")).unwrap();
    let before = system.traces();

    system.dpkg(&["--install", "/tidegate.deb"]);
    for file in SHIPPED {
        assert!(system.has(file), "{file} is missing");
    }
    assert!(system.dpkg(&["--verify", "tidegate"]).is_empty(), "what was installed is what was packed");
    assert!(system.read("/etc/passwd").contains("\ntidegate:"), "it has a user of its own");
    said(system.inside("tidegate:tidegate").args([
        "tidegate",
        "check",
        "--config",
        "/etc/tidegate/tidegate.toml",
    ]));

    // As the unit starts it, on ports of its own; nobody has mounted /proc.
    let mut serve = system.inside("tidegate:tidegate");
    serve.args(["tidegate", "serve", "--config", "/etc/tidegate/tidegate.toml"]);
    serve.env("TIDEGATE_LISTEN", "echo=tcp://127.0.0.1:0").env("TIDEGATE_ADMIN", "127.0.0.1:0");
    let server = serving(serve);
    server.client().say("hello").hear("hello");
    let mut admin = Client::connect(server.admin());
    admin.say("GET /readyz HTTP/1.0\r\n\r\n");
    assert!(admin.rest().0.starts_with(b"HTTP/1.1 200 OK"));
    server.signal(Signal::TERM);
    assert_eq!(server.ended().0, Some(0));

    // A configuration that was changed outlives another version, and the removal.
    let config = system.folder.0.join("etc/tidegate/tidegate.toml");
    std::fs::write(&config, "listen = \"hello=tcp://127.0.0.1:5000\"\n").unwrap();
    system.dpkg(&["--install", "/tidegate.deb"]);
    system.dpkg(&["--remove", "tidegate"]);
    assert!(!system.has("/usr/bin/tidegate"));
    assert!(system.read("/etc/tidegate/tidegate.toml").contains("hello="));

    system.dpkg(&["--purge", "tidegate"]);
    assert_eq!(system.traces(), before, "nothing is left");
    for file in ["/etc/passwd", "/etc/group"] {
        assert!(!system.read(file).contains("tidegate"), "{file}");
    }
}

/// The lines of the Dockerfile that begin with a word.
fn steps(word: &str) -> Vec<String> {
    let text = include_str!("../packaging/Dockerfile");
    let lines = text.lines().filter_map(|line| line.strip_prefix(word)?.strip_prefix(' '));
    lines.map(str::to_owned).collect()
}

/// What stands in a list of texts: `["/tidegate", "stress"]`.
fn list(text: &str) -> Vec<String> {
    serde_json::from_str(&text[text.find('[').expect("a list")..]).unwrap()
}

/// No container engine runs where the tests do, so this does the image's steps by hand: an empty root with the program
/// alone (and the C library, since the program under test is not the static one), the image's user, its variables, its
/// health check and its signal.
#[test]
fn the_steps_of_the_image_serve_without_root_in_an_empty_folder() {
    let root = Folder::new("image");
    std::fs::copy(path(), root.0.join("tidegate")).unwrap();
    for library in said(command("ldd").arg(path()))
        .lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')).map(str::to_owned))
    {
        let to = root.0.join(library.trim_start_matches('/'));
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(&library, to).unwrap();
    }
    let user = steps("USER").pop().expect("it has a user");
    assert!(user.split(':').all(|number| number.parse::<u32>().is_ok_and(|number| number > 0)), "{user}");
    let inside = || {
        let mut inside = command("chroot");
        inside.arg(format!("--userspec={user}")).arg(&root.0);
        for (name, value) in
            steps("ENV").iter().flat_map(|line| line.split(' ')).filter_map(|one| one.split_once('='))
        {
            // The ports of the image may be taken here.
            let (address, _) = value.rsplit_once(':').expect("an address");
            inside.env(name, format!("{address}:0"));
        }
        inside
    };
    let mut serve = inside();
    serve.args(list(&steps("ENTRYPOINT")[0]));
    let server = serving(serve);
    let port = server.address().port();
    Client::connect(([127, 0, 0, 1], port).into()).say("hello").hear("hello");
    let admin = server.admin().port().to_string();
    let check = list(steps("HEALTHCHECK")[0].split_once("CMD").unwrap().1);
    let check: Vec<String> = check.iter().map(|word| word.replace("9464", &admin)).collect();
    said(inside().args(&check));
    assert_eq!(steps("STOPSIGNAL"), ["SIGTERM"]);
    server.signal(Signal::TERM);
    assert_eq!(server.ended().0, Some(0));
}

/// Every manifest, after Kubernetes' own schemas have been applied to those of its own kinds.
fn manifests() -> Vec<Value> {
    let files =
        ["tidegate.yaml", "podmonitor.yaml"].map(|name| format!("{HOME}/packaging/kubernetes/{name}"));
    let mut python = command(&format!("{HOME}/target/test-venv/bin/python"));
    let all = said(python.arg(format!("{HOME}/tests/python/manifests.py")).args(files));
    serde_json::from_str(&all).unwrap()
}

fn of_kind<'a>(all: &'a [Value], kind: &str) -> &'a Value {
    all.iter().find(|one| one["kind"] == kind).unwrap_or_else(|| panic!("there is a {kind}"))
}

#[test]
fn the_manifests_are_valid_by_the_published_schemas_and_fit_together() {
    let all = manifests();
    let pod = &of_kind(&all, "Deployment")["spec"]["template"];
    let container = &pod["spec"]["containers"][0];
    let ports: Vec<&str> =
        container["ports"].as_array().unwrap().iter().map(|port| port["name"].as_str().unwrap()).collect();
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        let port = container[probe]["httpGet"]["port"].as_str().expect("a port by its name");
        assert!(ports.contains(&port), "{probe}: {port}");
    }
    assert_eq!(container["readinessProbe"]["httpGet"]["path"], "/readyz");
    assert_eq!(container["livenessProbe"]["httpGet"]["path"], "/livez");
    for port in of_kind(&all, "Service")["spec"]["ports"].as_array().unwrap() {
        assert!(ports.contains(&port["targetPort"].as_str().unwrap()), "{port}");
    }
    // The operator's schema is not among Kubernetes' own: what it needs is looked at here.
    let monitor = of_kind(&all, "PodMonitor");
    assert_eq!(monitor["apiVersion"], "monitoring.coreos.com/v1");
    let endpoint = &monitor["spec"]["podMetricsEndpoints"][0];
    assert!(ports.contains(&endpoint["port"].as_str().unwrap()));
    assert_eq!(endpoint["path"], "/metrics");
    let labels = &pod["metadata"]["labels"];
    for selector in [
        &of_kind(&all, "Deployment")["spec"]["selector"]["matchLabels"],
        &of_kind(&all, "Service")["spec"]["selector"],
        &of_kind(&all, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        &monitor["spec"]["selector"]["matchLabels"],
    ] {
        assert_eq!(selector, labels);
    }
}

fn seconds(text: &str) -> u64 {
    text.strip_suffix('s').and_then(|number| number.parse().ok()).expect("seconds")
}

#[test]
fn the_configuration_in_the_manifests_is_one_and_its_drain_fits_into_the_grace_period() {
    let all = manifests();
    let text = of_kind(&all, "ConfigMap")["data"]["tidegate.toml"].as_str().unwrap();
    let folder = Folder::new("manifest");
    let file = folder.0.join("tidegate.toml");
    // The name of the backend is known in the cluster only.
    std::fs::write(&file, text.replace("backend.default.svc", "127.0.0.1")).unwrap();
    let said = said(command(path()).args(["check", "--config"]).arg(&file));
    let spec = &of_kind(&all, "Deployment")["spec"]["template"]["spec"];
    let table: toml::Table = toml::from_str(text).unwrap();
    let time = |key: &str| seconds(table[key].as_str().expect("a text"));
    let grace = spec["terminationGracePeriodSeconds"].as_u64().unwrap();
    assert!(grace > time("drain-delay") + time("drain-timeout"), "{grace} s");
    let memory = said.lines().find_map(|line| line.trim().strip_prefix("memory ")).expect("memory");
    let most: u64 = memory.trim().split("MiB").next().unwrap().parse().unwrap();
    let limit = spec["containers"][0]["resources"]["limits"]["memory"].as_str().unwrap();
    let limit: u64 = limit.strip_suffix("Mi").unwrap().parse().unwrap();
    assert!(limit >= most, "{limit} MiB are allowed, {most} MiB is the most it takes");
    let port = spec["containers"][0]["ports"][0]["containerPort"].as_u64().unwrap();
    assert!(table["listen"].as_str().unwrap().ends_with(&format!(":{port}")));
}
