//! Settings of the C library's allocator.

/// Whether this process is the program, whose allocator serves nobody else.
static SAVES_MEMORY: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

/// Has the C library give free memory back that lies between what is in use. Only in the program: in
/// another process this would be a pass over the whole heap of somebody else.
pub(crate) fn give_memory_back() {
    if SAVES_MEMORY.load(std::sync::atomic::Ordering::Relaxed) {
        #[cfg(all(target_os = "linux", target_env = "gnu"))]
        // SAFETY: the call takes a plain number, and may be made by any thread at any time.
        unsafe {
            libc::malloc_trim(0);
        }
    }
}

/// Has the C library use less memory: all threads share two heaps (its default is one for each of
/// the first eight threads per processor, each with pages of its own), and blocks from 48 KiB on come
/// from the kernel, zeroed without being touched, and go back to it when they are freed.
#[cfg(feature = "cli")]
pub(crate) fn save_memory() {
    SAVES_MEMORY.store(true, std::sync::atomic::Ordering::Relaxed);
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: the calls take plain numbers, and are made before there is a second thread.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 48 * 1024);
    }
}
