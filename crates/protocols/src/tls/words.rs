//! Words for what can go wrong with TLS. `options` is what the names of the options begin with that choose it: `--`, or
//! `--backend-`.

use rustls::{CertificateError, Error};

/// Whether a server was not believed because its certificate is one that signs others.
pub(super) fn is_an_authority(error: &Error) -> bool {
    // The error inside is one of a crate that is not named here.
    matches!(error, Error::InvalidCertificate(CertificateError::Other(why)) if why.to_string() == "CaUsedAsEndEntity")
}

/// Why a handshake failed, and what to do.
pub fn explain(error: &Error, options: &str) -> String {
    match error {
        // One of the same name is trusted, and it was another who signed.
        Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            format!(
                "no trusted authority has signed its certificate: name a file with {options}cacert, or accept \
                 any certificate with {options}insecure"
            )
        }
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => format!("its certificate is for another name: give that name with {options}tls-name"),
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            format!("its certificate has expired: {options}insecure accepts it")
        }
        Error::InvalidCertificate(
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
        ) => "its certificate is not valid yet by this machine's clock: look whether the clock is right"
            .to_owned(),
        error if is_an_authority(error) => format!(
            "its certificate is an authority's own (CA:TRUE), as openssl req -x509 makes them: name that certificate \
             itself with {options}cacert, or give the server one with CA:FALSE"
        ),
        Error::InvalidMessage(_) => "it does not speak TLS".to_owned(),
        Error::AlertReceived(alert) => {
            format!("it ended the TLS handshake with the alert `{}`", spelt_out(&format!("{alert:?}")))
        }
        other => format!("TLS failed: {}", in_words(other)),
    }
}

/// An error in words: rustls shows some by the names that they have in its code.
pub fn in_words(error: &Error) -> String {
    match error {
        Error::PeerIncompatible(why) => {
            format!("the two sides can agree on no TLS: {}", spelt_out(&format!("{why:?}")))
        }
        Error::PeerMisbehaved(why) => {
            format!("the other side broke the rules of TLS: {}", spelt_out(&format!("{why:?}")))
        }
        Error::AlertReceived(alert) => {
            format!("the other side ended TLS with the alert `{}`", spelt_out(&format!("{alert:?}")))
        }
        Error::InvalidMessage(why) => {
            format!("what came is not TLS: {}", spelt_out(&format!("{why:?}")))
        }
        Error::InvalidCertificate(CertificateError::Other(why)) => {
            format!("the certificate cannot be used: {}", spelt_out(&why.to_string()))
        }
        other => other.to_string(),
    }
}

/// The words of a name in capitals and small letters: `HandshakeFailure` is "handshake failure".
fn spelt_out(name: &str) -> String {
    if name.contains(' ') {
        return name.to_owned();
    }
    let mut words = String::new();
    for letter in name.chars() {
        if letter.is_uppercase()
            && words.ends_with(|before: char| before.is_lowercase() || before.is_numeric())
        {
            words.push(' ');
        }
        words.extend(letter.to_lowercase());
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::{AlertDescription, PeerIncompatible};

    #[test]
    fn no_name_of_the_code_is_shown() {
        for (error, words) in [
            (
                Error::AlertReceived(AlertDescription::HandshakeFailure),
                "it ended the TLS handshake with the alert `handshake failure`",
            ),
            (
                Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon),
                "TLS failed: the two sides can agree on no TLS: no cipher suites in common",
            ),
            (
                Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered),
                "TLS failed: the two sides can agree on no TLS: tls12 not offered",
            ),
        ] {
            assert_eq!(explain(&error, "--"), words);
        }
    }
}
