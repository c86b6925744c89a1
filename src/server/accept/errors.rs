//! The errors of accept(2), in classes. The class decides what the server does next, and is a label of the metric.

use crate::reason::AcceptError;
use rustix::io::Errno;
use std::io;

/// The class of an error of accept.
pub(crate) fn classify(error: &io::Error) -> AcceptError {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::MFILE) => AcceptError::Emfile,
        Some(Errno::NFILE) => AcceptError::Enfile,
        Some(Errno::NOBUFS | Errno::NOMEM) => AcceptError::Nobufs,
        // accept(2) asks to treat the network's errors like a client that gave up.
        Some(
            Errno::CONNABORTED
            | Errno::PROTO
            | Errno::NETDOWN
            | Errno::NETUNREACH
            | Errno::HOSTDOWN
            | Errno::HOSTUNREACH
            | Errno::PERM,
        ) => AcceptError::Aborted,
        _ => AcceptError::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_a_class() {
        let class = |errno: Errno| classify(&io::Error::from(errno));
        assert_eq!(class(Errno::MFILE), AcceptError::Emfile);
        assert_eq!(class(Errno::NFILE), AcceptError::Enfile);
        assert_eq!([Errno::NOBUFS, Errno::NOMEM].map(class), [AcceptError::Nobufs; 2]);
        assert_eq!([Errno::CONNABORTED, Errno::PROTO, Errno::PERM].map(class), [AcceptError::Aborted; 3]);
        assert_eq!(class(Errno::INVAL), AcceptError::Other);
        assert_eq!(classify(&io::Error::other("not the kernel's")), AcceptError::Other);
    }
}
