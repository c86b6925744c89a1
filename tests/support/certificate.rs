//! Certificates for tests: made anew for each, with a key that nobody else has.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

/// A certificate that signed itself, and its key, in PEM.
pub(crate) struct Certificate {
    pub(crate) pem: String,
    pub(crate) key: String,
}

impl Certificate {
    /// For these names, valid until the first day of `until`.
    pub(crate) fn new(names: &[&str], until: i32) -> Self {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        Self { pem: params.self_signed(&key).unwrap().pem(), key: key.serialize_pem() }
    }

    /// For these names, and an authority itself, as `openssl req -x509` makes them.
    pub(crate) fn with_ca(names: &[&str]) -> Self {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        Self { pem: params.self_signed(&key).unwrap().pem(), key: key.serialize_pem() }
    }

    /// For these names, signed by an authority that only this test has. The chain goes up to the authority.
    pub(crate) fn with_authority(names: &[&str]) -> (Self, Authority) {
        use rcgen::{
            BasicConstraints, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, PublicKeyData,
        };
        let mut root = rcgen::CertificateParams::default();
        root.distinguished_name.push(DnType::CommonName, "an authority for tests");
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        root.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let root_key = rcgen::KeyPair::generate().unwrap();
        let pem = root.self_signed(&root_key).unwrap().pem();
        let public_key = root_key.subject_public_key_info();
        let mut leaf =
            rcgen::CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>())
                .unwrap();
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = rcgen::KeyPair::generate().unwrap();
        let signed = leaf.signed_by(&key, &rcgen::Issuer::new(root, root_key)).unwrap().pem();
        (Self { pem: signed + &pem, key: key.serialize_pem() }, Authority { pem, public_key })
    }

    pub(crate) fn files(&self) -> Files {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("tidegate-tls-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let files =
            Files { certificate: directory.join("cert.pem"), key: directory.join("key.pem"), directory };
        files.write(self);
        files
    }
}

/// An authority that has signed certificates.
pub(crate) struct Authority {
    pub(crate) pem: String,
    /// In DER, with its kind.
    pub(crate) public_key: Vec<u8>,
}

/// A certificate and its key in files, which are removed in the end.
pub(crate) struct Files {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    directory: PathBuf,
}

impl Files {
    pub(crate) fn write(&self, certificate: &Certificate) {
        std::fs::write(&self.certificate, &certificate.pem).unwrap();
        std::fs::write(&self.key, &certificate.key).unwrap();
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
