//! Whether a quota of processor time stopped the process. A container may be given half a processor: the other half is
//! idle then, but the server cannot use it, so that idle time must not count as rest.
//!
//! A control group with a quota (`cpu.max`, or `cpu.cfs_quota_us` in version 1) says in `cpu.stat` in how many periods,
//! usually of 100 ms, the kernel stopped it because the quota was used up. Groups above that of the process can have a
//! quota too.

use std::fs::File;
use std::path::{Path, PathBuf};

/// Where the file systems of control groups are: of version 2, also beside version 1, and of version 1.
const ROOTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
const ROOTS_OF_CPU: [&str; 2] = ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpu,cpuacct"];

/// As many groups are watched, from that of the process upwards. Systems nest them four or five deep.
const GROUPS_MOST: usize = 8;

/// The control groups of the process that can have a quota. They are looked up once: processes are put into a group before
/// they start.
#[derive(Debug)]
pub(super) struct QuotaMeter {
    groups: Vec<File>,
    /// The periods in which one of them was stopped, at the last reading.
    last: Option<u64>,
}

impl QuotaMeter {
    pub(super) fn new() -> Self {
        let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let files =
            folders(&groups).into_iter().filter_map(|folder| File::open(folder.join("cpu.stat")).ok());
        let groups = files.filter(|file| read(file).is_some()).take(GROUPS_MOST).collect();
        Self { groups, last: None }
    }

    /// Whether a quota was used up since the last call, as far as is known.
    pub(super) fn was_used_up(&mut self) -> bool {
        let now = self.groups.iter().filter_map(read).sum();
        self.last.replace(now).is_some_and(|last| now > last)
    }

    /// Forgets the last reading: the time since then is of no interest.
    pub(super) fn forget(&mut self) {
        self.last = None;
    }
}

/// The folders in which the groups of a process can be, by what `/proc/self/cgroup` says: of each kind its own and those above
/// it. A container sees its own group as the root, whatever the path says.
fn folders(groups: &str) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let roots = match controllers {
            "" => ROOTS,
            _ if controllers.split(',').any(|controller| controller == "cpu") => ROOTS_OF_CPU,
            _ => continue,
        };
        for above in Path::new(path.trim_start_matches('/')).ancestors() {
            folders.extend(roots.iter().map(|root| Path::new(root).join(above)));
        }
    }
    folders
}

fn read(file: &File) -> Option<u64> {
    // The file of a kernel of today has some 400 bytes.
    let mut text = [0u8; 2048];
    let read = std::os::unix::fs::FileExt::read_at(file, &mut text, 0).ok()?;
    stopped(&text[..read])
}

/// In how many periods the group was stopped; `None` if it can have no quota, as the root.
fn stopped(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    let periods = text.lines().find_map(|line| line.strip_prefix("nr_throttled "))?;
    periods.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_periods_in_which_a_group_was_stopped_are_read_in_both_versions() {
        let second =
            "usage_usec 90\nuser_usec 60\nsystem_usec 30\nnr_periods 12\nnr_throttled 7\nthrottled_usec 9\n";
        assert_eq!(stopped(second.as_bytes()), Some(7));
        assert_eq!(stopped(b"nr_periods 12\nnr_throttled 8\nthrottled_time 7008\n"), Some(8));
        for none in ["", "usage_usec 90\nuser_usec 60\nsystem_usec 30\n", "nr_throttled x\n"] {
            assert_eq!(stopped(none.as_bytes()), None, "{none}");
        }
        assert_eq!(stopped(b"\xff"), None);
    }

    #[test]
    fn the_groups_of_a_process_and_those_above_them_are_found_from_its_own_upwards() {
        let found = |groups: &str| {
            let found = folders(groups).into_iter();
            found.map(|folder| folder.to_str().unwrap().trim_end_matches('/').to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(
            found("0::/a.slice/b\n"),
            [
                "/sys/fs/cgroup/a.slice/b",
                "/sys/fs/cgroup/unified/a.slice/b",
                "/sys/fs/cgroup/a.slice",
                "/sys/fs/cgroup/unified/a.slice",
                "/sys/fs/cgroup",
                "/sys/fs/cgroup/unified",
            ]
        );
        let first = found("9:name=systemd:/x\n3:cpuset:/x\n2:cpu,cpuacct:/box\nnonsense\n");
        assert_eq!(first[..2], ["/sys/fs/cgroup/cpu/box", "/sys/fs/cgroup/cpu,cpuacct/box"]);
        assert_eq!((first.len(), first.last().unwrap().as_str()), (4, "/sys/fs/cgroup/cpu,cpuacct"));
        assert!(found("").is_empty());
    }

    #[test]
    fn a_quota_was_used_up_when_a_group_was_stopped_since_the_last_reading() {
        let folder = std::env::temp_dir().join(format!("tidegate-quota-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("cpu.stat");
        let write = |periods: u32| std::fs::write(&path, format!("nr_throttled {periods}\n")).unwrap();
        write(5);
        let mut meter = QuotaMeter { groups: vec![File::open(&path).unwrap()], last: None };
        assert!(!meter.was_used_up(), "the past is of no interest");
        assert!(!meter.was_used_up());
        write(6);
        assert!(meter.was_used_up() && !meter.was_used_up());
        write(7);
        meter.forget();
        assert!(!meter.was_used_up());
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(!QuotaMeter { groups: Vec::new(), last: None }.was_used_up());
    }
}
