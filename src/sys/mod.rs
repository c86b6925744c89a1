//! System calls. This is the only folder with unsafe code; at each use a comment says why it is sound.
#![allow(unsafe_code)]

#[cfg(target_os = "linux")]
mod accept_queue;
mod allocator;
mod clock;
mod datagrams;
mod descriptors;
#[cfg(feature = "cli")]
mod handed;
mod local_time;
mod mapping;
#[cfg(feature = "cli")]
mod orders;
#[cfg(feature = "cli")]
mod signals;
mod slice;
mod socket;
#[cfg(all(feature = "cli", target_os = "linux"))]
mod start_pages;
pub(crate) mod sync;
mod usage;

#[cfg(target_os = "linux")]
pub(crate) use accept_queue::{socket_drops, tcp_listen_info};
pub(crate) use allocator::give_memory_back;
#[cfg(feature = "cli")]
pub(crate) use allocator::save_memory;
pub(crate) use clock::{Clock, unix_second};
pub(crate) use datagrams::{
    DATAGRAMS_AT_ONCE, Given, Taken, receive_datagrams, report_local_address, send_datagrams,
};
pub(crate) use descriptors::raise_open_files;
#[cfg(feature = "cli")]
pub(crate) use handed::take_descriptors;
#[cfg(test)]
pub(crate) use local_time::print_by_c;
pub(crate) use local_time::{LocalTime, local_time};
pub(crate) use mapping::{Mapping, whole_pages};
#[cfg(feature = "cli")]
pub(crate) use orders::{hold, wait_for};
#[cfg(feature = "cli")]
pub(crate) use signals::{is_ignored, keep_ignored};
pub(crate) use slice::ask_for_short_slices;
#[cfg(all(test, target_os = "linux"))]
pub(crate) use socket::segments_received;
pub(crate) use socket::{peer_credentials, since_handshake, unacknowledged};
#[cfg(all(feature = "cli", target_os = "linux"))]
pub(crate) use start_pages::give_start_back;
pub(crate) use usage::{ThreadUsage, thread_time, thread_usage};
