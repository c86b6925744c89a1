//! A build without the feature `tls`: no target speaks it, which the compiler knows.

use super::{Shaken, TlsChoices};
use std::io::{self, Read, Write};

/// There is none.
#[derive(Debug)]
pub enum NoTls {}

impl NoTls {
    /// Always an error.
    pub fn new(_: &TlsChoices, _: &str, _: Option<&str>) -> Result<Self, String> {
        Err("this tidegate was built without TLS (the feature `tls`)".to_owned())
    }

    /// There is none.
    pub fn begin(&self) -> Option<Box<NoSession>> {
        match *self {}
    }

    /// There is none.
    pub fn why(&self) -> Option<String> {
        match *self {}
    }
}

/// There is none.
#[derive(Debug)]
pub enum NoSession {}

impl NoSession {
    /// There is none.
    pub fn shake(&mut self, _: &NoTls, _: &mut (impl Read + Write)) -> Shaken {
        match *self {}
    }

    /// There is none.
    pub fn flush(&mut self, _: &mut impl Write) -> io::Result<()> {
        match *self {}
    }

    /// There is none.
    pub fn send(&mut self, _: &mut impl Write, _: &[u8]) -> io::Result<usize> {
        match *self {}
    }

    /// There is none.
    pub fn receive(&mut self, _: &mut (impl Read + Write), _: &mut [u8]) -> io::Result<usize> {
        match *self {}
    }

    /// There is none.
    pub fn has_input(&mut self) -> bool {
        match *self {}
    }

    /// There is none.
    pub fn has_output(&self) -> bool {
        match *self {}
    }

    /// There is none.
    pub fn end(&mut self, _: &mut impl Write) {
        match *self {}
    }
}
