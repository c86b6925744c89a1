//! A build without the feature `tls`: no listener and no backend has any, which the compiler knows.

use super::choices::BackendTls;
use super::facts::TlsFacts;
use super::outcome::{Advance, Broken};
use super::records::Records;

/// The certificates and rules of a listener, of which there are none.
#[derive(Clone, Debug)]
pub(crate) enum NoSetup {}

impl NoSetup {
    pub(crate) fn engine(&self) -> Result<NoEngine, Broken> {
        match *self {}
    }

    pub(crate) fn expires_at(&self) -> u64 {
        match *self {}
    }
}

/// TLS with backends, of which there is none.
#[derive(Debug)]
pub(crate) enum NotToBackends {}

/// The name of a backend that speaks TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NoBackendTlsName {}

impl NotToBackends {
    pub(crate) const NAME_BYTES: usize = 0;

    pub(crate) fn new(_: &BackendTls, _: bool, _: usize) -> Result<Self, String> {
        Err("this tidegate was built without TLS (the feature `tls`)".to_owned())
    }

    pub(crate) fn name(&self, _: Option<&str>) -> Result<NoBackendTlsName, String> {
        match *self {}
    }

    pub(crate) fn engine(&self, _: &NoBackendTlsName) -> Result<NoEngine, Broken> {
        match *self {}
    }
}

/// The TLS of one connection, of which there is none.
#[derive(Debug)]
pub(crate) enum NoEngine {}

impl NoEngine {
    pub(crate) const BYTES: usize = 0;

    pub(crate) fn advance(
        &mut self,
        _: &mut Records,
        _: &mut [u8],
        _: &mut Vec<u8>,
    ) -> Result<(usize, Advance), Broken> {
        match *self {}
    }

    pub(crate) fn seal(&mut self, _: &[u8], _: &mut Records, _: &mut Vec<u8>) -> Result<(), Broken> {
        match *self {}
    }

    pub(crate) fn close_notify(&mut self, _: &[u8], _: &mut Vec<u8>) {
        match *self {}
    }

    pub(crate) fn facts(&self) -> TlsFacts {
        match *self {}
    }

    pub(crate) fn is_open(&self) -> bool {
        match *self {}
    }

    pub(crate) fn has_more(&self) -> bool {
        match *self {}
    }
}
