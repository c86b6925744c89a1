//! Pages of the program's files that only its start needed.
//!
//! At its start the program reads options and files, sets TLS up, and prints its start lines. This runs code from all over
//! the program's file, and for each page that is touched the kernel maps the fifteen pages around it. A server that serves
//! needs only a part of these pages, and the others would count as its memory while it lives. So it gives them back. They
//! stay in the kernel's cache of files: a page that is needed again is back within a microsecond.

use super::whole_pages;
use std::fs::{File, read_to_string};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// In the kernel's word about a page: it is mapped, and its content is the file's. A page that a debugger or a tracer has
/// written to, or that had to be relocated, is not the file's any more.
const PRESENT: u64 = 1 << 63;
const OF_FILE: u64 = 1 << 61;

/// Gives back the pages of code and constants that are as they are in their files.
pub(crate) fn give_start_back() {
    // Without /proc they stay.
    let _ = give_back();
}

fn give_back() -> io::Result<()> {
    let (maps, words) = (read_to_string("/proc/self/maps")?, File::open("/proc/self/pagemap")?);
    let page = whole_pages(1);
    for range in maps.lines().filter_map(constant_part) {
        let mut about = vec![0; range.len() / page * size_of::<u64>()];
        words.read_exact_at(&mut about, (range.start / page * size_of::<u64>()) as u64)?;
        let is_files = |word: &[u8]| {
            let word = word.try_into().map_or(0, u64::from_ne_bytes);
            word & (PRESENT | OF_FILE) == PRESENT | OF_FILE
        };
        let pages: Vec<bool> = about.chunks(size_of::<u64>()).map(is_files).collect();
        for run in runs(&pages) {
            forget(range.start + run.start * page, run.len() * page);
        }
    }
    Ok(())
}

/// The addresses of a line of /proc/self/maps, if it is about a part of a file that is private and cannot be written to.
fn constant_part(line: &str) -> Option<Range<usize>> {
    let mut words = line.split_ascii_whitespace();
    let (range, access) = (words.next()?, words.next()?);
    if !matches!(access, "r-xp" | "r--p") || !words.nth(3)?.starts_with('/') {
        return None;
    }
    let (start, end) = range.split_once('-')?;
    Some(usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?)
}

/// The ranges in which all are true.
fn runs(flags: &[bool]) -> impl Iterator<Item = Range<usize>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at + flags[at..].iter().position(|&flag| flag)?;
        at = start + flags[start..].iter().take_while(|&&flag| flag).count();
        Some(start..at)
    })
}

fn forget(start: usize, len: usize) {
    // SAFETY: the pages are private, of a file, cannot be written to, and have the file's content: when one is touched
    // again, the kernel maps the same content again. A call that fails changes nothing.
    unsafe {
        libc::madvise(std::ptr::with_exposed_provenance_mut(start), len, libc::MADV_DONTNEED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn only_parts_of_files_that_nobody_can_write_to_are_constant() {
        let part = |line: &str| constant_part(line);
        assert_eq!(part("1000-3000 r-xp 00000000 08:01 7 /usr/bin/x y"), Some(0x1000..0x3000));
        assert_eq!(part("1000-3000 r--p 00001000 08:01 7    /lib/a.so"), Some(0x1000..0x3000));
        for other in [
            "1000-3000 rw-p 00000000 08:01 7 /usr/bin/x",
            "1000-3000 r--s 00000000 08:01 7 /usr/bin/x",
            "1000-3000 r-xp 00000000 00:00 0 [vdso]",
            "1000-3000 r--p 00000000 00:00 0",
            "nonsense",
            "",
        ] {
            assert_eq!(part(other), None, "{other}");
        }
    }

    #[test]
    fn runs_are_found_wherever_they_begin_and_end() {
        let found = |flags: &[u8]| {
            let flags: Vec<bool> = flags.iter().map(|&flag| flag == 1).collect();
            runs(&flags).collect::<Vec<_>>()
        };
        assert_eq!(found(&[1, 1, 0, 1, 0, 0, 1]), [0..2, 3..4, 6..7]);
        assert_eq!(found(&[0, 1, 0, 1, 1]), [1..2, 3..5]);
        assert!(found(&[0, 0]).is_empty() && found(&[]).is_empty());
    }

    #[test]
    fn a_page_that_was_written_to_stays_and_the_others_are_as_in_the_file() {
        let page = whole_pages(1);
        let path = std::env::temp_dir().join(format!("tidegate-pages-{}", std::process::id()));
        std::fs::write(&path, vec![1; 2 * page]).unwrap();
        let file = File::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let (both, private) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE);
        // SAFETY: the kernel chooses a free range; it has two pages, of which the first byte of each is used, and only here.
        let bytes = unsafe {
            let start = libc::mmap(std::ptr::null_mut(), 2 * page, both, private, file.as_raw_fd(), 0);
            assert_ne!(start, libc::MAP_FAILED);
            *start.cast::<u8>() = 2;
            assert_eq!(libc::mprotect(start, 2 * page, libc::PROT_READ), 0);
            std::slice::from_raw_parts(start.cast::<u8>(), 2 * page)
        };
        assert_eq!((bytes[0], bytes[page]), (2, 1));
        give_back().unwrap();
        assert_eq!((bytes[0], bytes[page]), (2, 1));
    }
}
