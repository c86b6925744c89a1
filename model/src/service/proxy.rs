//! See the server's `service::proxy`.

#[path = "../../../src/service/proxy/backends/mod.rs"]
pub(crate) mod backends;

/// A number is an address here.
pub(crate) mod address {
    use std::fmt;

    #[derive(Clone, Debug, PartialEq, Eq)]
    pub(crate) struct BackendAddress(pub(crate) u16);

    impl fmt::Display for BackendAddress {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.0.fmt(f)
        }
    }
}
