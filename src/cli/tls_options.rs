//! The options of listeners that speak TLS. Each can also be a listener's own.

use crate::TlsVersion;
use crate::transport::tls::Setup;
use clap::Args;
use std::path::PathBuf;
use tidegate_units::url::Scheme;

/// Options of listeners at `tls://`, `https://` and `wss://`.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "TLS")]
pub(super) struct TlsOptions {
    /// File with the certificate and its chain, in PEM; may be repeated, each with its key: a client is shown the first
    /// that is for the name it asks for
    #[arg(long, value_name = "FILE", value_delimiter = ',')]
    tls_cert: Vec<PathBuf>,
    /// File with the private key of the certificate, in PEM; may be repeated
    #[arg(long, value_name = "FILE", value_delimiter = ',')]
    tls_key: Vec<PathBuf>,
    /// Oldest version of TLS that is spoken, 1.2 or 1.3 [default: 1.2]
    #[arg(long, value_name = "VERSION")]
    tls_min_version: Option<TlsVersion>,
}

/// Why a listener cannot speak TLS.
#[derive(Debug)]
pub(super) enum TlsProblem {
    /// A person must change an option.
    Usage(String),
    /// A file is not what it should be, and may be another time.
    Failed(String),
}

/// The names of these options, which a listener may have of its own.
pub(super) const NAMES: [&str; 3] = ["tls-cert", "tls-key", "tls-min-version"];

/// What is spoken inside TLS, where there is TLS.
pub(super) fn inside(scheme: Scheme) -> Option<Scheme> {
    match scheme {
        Scheme::Tls => Some(Scheme::Tcp),
        Scheme::Https => Some(Scheme::Http),
        Scheme::Wss => Some(Scheme::Ws),
        _ => None,
    }
}

impl TlsOptions {
    /// These options, and the others' where these say nothing. A certificate comes with its key.
    pub(super) fn or(self, other: Self) -> Self {
        let tls_min_version = self.tls_min_version.or(other.tls_min_version);
        let there = |options: &Self| (!options.tls_cert.is_empty(), !options.tls_key.is_empty());
        let (tls_cert, tls_key) = match (there(&self), there(&other)) {
            ((false, false), _) => (other.tls_cert, other.tls_key),
            // The keys of a file and the variables of the environment are read one by one.
            ((true, false), (false, true)) => (self.tls_cert, other.tls_key),
            ((false, true), (true, false)) => (other.tls_cert, self.tls_key),
            _ => (self.tls_cert, self.tls_key),
        };
        Self { tls_cert, tls_key, tls_min_version }
    }

    /// The TLS of a listener, if its scheme has any.
    pub(super) fn setup(&self, scheme: Scheme) -> Result<Option<Setup>, TlsProblem> {
        if inside(scheme).is_none() {
            return Ok(None);
        }
        let (certificates, keys) = (self.tls_cert.len(), self.tls_key.len());
        let named =
            |files: &[PathBuf]| files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>();
        let missing = match (certificates, keys) {
            (0, 0) => "it needs a certificate: write --tls-cert FILE --tls-key FILE".to_owned(),
            (_, 0) => format!(
                "the certificate {} has no private key: add --tls-key FILE",
                named(&self.tls_cert).join(",")
            ),
            (0, _) => {
                format!("the key {} has no certificate: add --tls-cert FILE", named(&self.tls_key).join(","))
            }
            _ => String::new(),
        };
        if !missing.is_empty() {
            return Err(TlsProblem::Usage(missing));
        }
        if certificates != keys {
            return Err(TlsProblem::Usage(format!(
                "tls-cert names {certificates} files and tls-key {keys}: each certificate has its own key"
            )));
        }
        self.read(scheme).map(Some)
    }

    #[cfg(feature = "tls")]
    fn read(&self, scheme: Scheme) -> Result<Setup, TlsProblem> {
        let failed = |error: crate::TlsError| TlsProblem::Failed(error.to_string());
        let mut pairs = self.tls_cert.iter().zip(&self.tls_key);
        let Some((certificate, key)) = pairs.next() else {
            return Err(TlsProblem::Usage("it needs a certificate".to_owned()));
        };
        let first = Setup::files(certificate, key).map_err(failed)?;
        let all = pairs.try_fold(first, |tls, (certificate, key)| tls.and_files(certificate, key));
        let mut tls = all.map_err(failed)?;
        if let Some(version) = self.tls_min_version {
            tls = tls.min_version(version).map_err(failed)?;
        }
        let protocols: &[&str] = if scheme == Scheme::Tls { &[] } else { &["http/1.1"] };
        tls.protocols(protocols).map_err(failed)
    }

    #[cfg(not(feature = "tls"))]
    fn read(&self, _: Scheme) -> Result<Setup, TlsProblem> {
        Err(TlsProblem::Failed("this tidegate was built without TLS (the feature `tls`)".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_may_have_each_of_them_of_its_own() {
        let command = TlsOptions::augment_args(clap::Command::new("tls"));
        let names: Vec<_> = command.get_arguments().filter_map(|arg| arg.get_long()).collect();
        assert_eq!(names, NAMES);
    }

    #[test]
    fn a_certificate_of_a_listener_comes_with_its_own_key() {
        let of = |name: &str| TlsOptions {
            tls_cert: vec![format!("{name}.pem").into()],
            tls_key: vec![format!("{name}.key").into()],
            tls_min_version: None,
        };
        let merged = of("own").or(of("shared"));
        assert_eq!((merged.tls_cert, merged.tls_key), (vec!["own.pem".into()], vec!["own.key".into()]));
        let cert = |name: &str| TlsOptions { tls_key: Vec::new(), ..of(name) };
        let key = |name: &str| TlsOptions { tls_cert: Vec::new(), ..of(name) };
        for whole in [cert("one").or(key("two")), key("two").or(cert("one"))] {
            assert_eq!((whole.tls_cert, whole.tls_key), (vec!["one.pem".into()], vec!["two.key".into()]));
        }
        let half = TlsOptions { tls_key: Vec::new(), ..of("own") }.or(of("shared"));
        let problem = half.setup(Scheme::Https).unwrap_err();
        assert!(matches!(&problem, TlsProblem::Usage(why) if why.contains("--tls-key FILE")), "{problem:?}");
    }
}
