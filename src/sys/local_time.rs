//! The local time, as the C library tells it.

/// A moment in the local time zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LocalTime {
    pub(crate) year: i64,
    /// From 0 for January.
    pub(crate) month: usize,
    pub(crate) day: i32,
    /// From 0 for Sunday.
    pub(crate) weekday: usize,
    pub(crate) hour: i32,
    pub(crate) minute: i32,
    /// 60 in a leap second, where the zone knows of them.
    pub(crate) second: i32,
}

/// What the C library says is the local time, this number of seconds after 1970; `None` if it cannot say.
pub(crate) fn local_time(second: i64) -> Option<LocalTime> {
    let second = libc::time_t::try_from(second).ok()?;
    let mut tm = std::mem::MaybeUninit::<libc::tm>::uninit();
    // SAFETY: the call reads one number and writes one struct, both of which are ours alone. It reads the
    // environment, which safe code cannot change beside other threads, and locks what threads share.
    let result = unsafe { libc::localtime_r(&raw const second, tm.as_mut_ptr()) };
    if result.is_null() {
        return None;
    }
    // SAFETY: the call succeeded, so it has written the whole struct.
    let tm = unsafe { tm.assume_init() };
    Some(LocalTime {
        year: i64::from(tm.tm_year) + 1900,
        month: usize::try_from(tm.tm_mon).ok()?,
        day: tm.tm_mday,
        weekday: usize::try_from(tm.tm_wday).ok()?,
        hour: tm.tm_hour,
        minute: tm.tm_min,
        second: tm.tm_sec,
    })
}

/// What C's own `ctime` prints, to compare with.
#[cfg(test)]
pub(crate) fn print_by_c(second: i64) -> String {
    unsafe extern "C" {
        fn ctime_r(time: *const libc::time_t, said: *mut libc::c_char) -> *mut libc::c_char;
    }
    let second = second as libc::time_t;
    let mut said = [0u8; 64];
    // SAFETY: the call reads one number and writes at most 26 bytes, ended by a 0, into a buffer of 64.
    let result = unsafe { ctime_r(&raw const second, said.as_mut_ptr().cast()) };
    assert!(!result.is_null(), "C cannot say {second}");
    let end = said.iter().position(|&byte| byte == 0).unwrap_or(said.len());
    String::from_utf8(said[..end].to_vec()).unwrap()
}
