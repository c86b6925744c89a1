//! A build without the feature `tls`: no target speaks it, which the compiler knows.

use super::{Shaken, TlsChoices};
use rustix::fd::OwnedFd;
use rustix::io::Errno;

/// There is none.
#[derive(Debug)]
pub(crate) enum NoTls {}

impl NoTls {
    pub(crate) fn new(_: &TlsChoices, _: &str, _: Option<&str>) -> Result<Self, String> {
        Err("this tidegate was built without TLS (the feature `tls`)".to_owned())
    }

    pub(crate) fn begin(&self) -> Option<Box<NoSecrets>> {
        match *self {}
    }

    pub(crate) fn why(&self) -> Option<String> {
        match *self {}
    }
}

/// There is none.
#[derive(Debug)]
pub(crate) enum NoSecrets {}

impl NoSecrets {
    pub(crate) fn shake(&mut self, _: &NoTls, _: &OwnedFd) -> Shaken {
        match *self {}
    }

    pub(crate) fn flush(&mut self, _: &OwnedFd) -> Result<(), Errno> {
        match *self {}
    }

    pub(crate) fn send(&mut self, _: &OwnedFd, _: &[u8]) -> Result<usize, Errno> {
        match *self {}
    }

    pub(crate) fn receive(&mut self, _: &OwnedFd, _: &mut [u8]) -> Result<usize, Errno> {
        match *self {}
    }

    pub(crate) fn end(&mut self, _: &OwnedFd) {
        match *self {}
    }
}
