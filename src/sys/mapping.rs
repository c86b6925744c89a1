//! Memory that is taken from the kernel page by page, not from the allocator.
//!
//! Pages that are given back leave the process at once, even if their neighbours stay, and no bookkeeping comes on top:
//! the process holds the sum of its pages. If the system has no more memory, the call returns an error. A failed
//! allocation in Rust would end the process.

use std::ops::{Deref, DerefMut};
use std::ptr::{NonNull, null_mut};

/// Some whole pages of memory, zeroed when they are new.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the pages belong to this value alone, and what can be reached through a shared reference can
// only be read.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

/// This number of bytes in whole pages; at least one.
pub(crate) fn whole_pages(bytes: usize) -> usize {
    // SAFETY: the call reads a constant of the system and takes no pointer.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    bytes.max(1).next_multiple_of(usize::try_from(page).unwrap_or(4096).max(1))
}

impl Mapping {
    /// A mapping of at least this many bytes; `None` if the system has no more.
    pub(crate) fn new(bytes: usize) -> Option<Self> {
        let len = whole_pages(bytes);
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANON);
        // SAFETY: the kernel chooses a free range, so nothing that exists is changed.
        let start = unsafe { libc::mmap(null_mut(), len, access, kind, -1, 0) };
        if start == libc::MAP_FAILED {
            return None;
        }
        Some(Self { start: NonNull::new(start.cast())?, len })
    }

    /// Makes them more or fewer, for at least this number of bytes; what they hold stays, as far as it fits.
    /// `false`, and nothing has changed, if the system has no more.
    pub(crate) fn resize(&mut self, bytes: usize) -> bool {
        let len = whole_pages(bytes);
        len == self.len || self.remap(len)
    }

    #[cfg(target_os = "linux")]
    fn remap(&mut self, len: usize) -> bool {
        // SAFETY: the range is the one that was mapped for this value. It may move: nobody else points into
        // it, since `self` is borrowed mutably.
        let start = unsafe { libc::mremap(self.start.as_ptr().cast(), self.len, len, libc::MREMAP_MAYMOVE) };
        let moved = NonNull::new(start.cast::<u8>()).filter(|_| start != libc::MAP_FAILED);
        if let Some(start) = moved {
            // Not by `*self = ..`, which would unmap what has become this range.
            (self.start, self.len) = (start, len);
        }
        moved.is_some()
    }

    #[cfg(not(target_os = "linux"))]
    fn remap(&mut self, len: usize) -> bool {
        let Some(mut other) = Self::new(len) else { return false };
        let common = len.min(self.len);
        other[..common].copy_from_slice(&self[..common]);
        *self = other;
        true
    }
}

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the range is mapped, readable and initialised (zeroed by the kernel) as long as `self`
        // lives, and is written through `&mut self` only.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for Mapping {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is the one that was mapped for this value, which nobody can use any more.
        let result = unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
        debug_assert_eq!(result, 0, "a range of whole pages can be unmapped");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_pages_hold_stays_when_they_become_more_and_fewer() {
        let page = whole_pages(1);
        let mut pages = Mapping::new(1).unwrap();
        assert_eq!((pages.len(), pages[page - 1]), (page, 0));
        pages[0] = 7;
        assert!(pages.resize(100 * page + 1));
        assert_eq!((pages.len(), pages[0], pages[100 * page]), (101 * page, 7, 0));
        pages[101 * page - 1] = 8;
        assert!(pages.resize(page));
        assert_eq!((pages.len(), pages[0]), (page, 7));
    }

    #[test]
    fn more_than_the_system_has_is_refused_and_nothing_is_lost() {
        assert!(Mapping::new(1 << 46).is_none());
        let mut pages = Mapping::new(1).unwrap();
        pages[0] = 7;
        assert!(!pages.resize(1 << 46));
        assert_eq!(pages[0], 7);
    }
}
