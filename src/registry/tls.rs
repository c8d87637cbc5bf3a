//! TLS: the system's roots plus extra ones, a verifier that can say what is wrong with a certificate, and one
//! that verifies nothing, used only for the hosts that are listed for it. TLS 1.2 and up, HTTP/1.1 only.

use std::{collections::HashSet, io, sync::Arc};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, InvalidMessage, OtherError, RootCertStore,
    SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
    server::ParsedCertificate,
};

use crate::model::{class::Class, failure::Failure};

#[derive(Clone)]
pub(crate) struct Tls {
    verified: Arc<ClientConfig>,
    unverified: Arc<ClientConfig>,
}

impl Tls {
    /// `extra` are PEM texts; they add to the system's roots (or to those that `SSL_CERT_FILE` names).
    pub(crate) fn new(extra: &[Vec<u8>]) -> Result<Self, Failure> {
        let mut roots = rustls_native_certs::load_native_certs().certs;
        for pem in extra {
            let parsed: Result<Vec<CertificateDer<'static>>, _> =
                CertificateDer::pem_slice_iter(pem).collect();
            match parsed {
                Ok(certificates) if !certificates.is_empty() => roots.extend(certificates),
                _ => {
                    return Err(Failure::new(
                        Class::InvalidSpec,
                        "an extra CA file holds no PEM certificate",
                    ));
                }
            }
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let explaining: Arc<dyn ServerCertVerifier> = Arc::new(Explaining::new(roots, &provider));
        let blind: Arc<dyn ServerCertVerifier> =
            Arc::new(Blind { algorithms: provider.signature_verification_algorithms });
        Ok(Self { verified: config(&provider, explaining)?, unverified: config(&provider, blind)? })
    }

    pub(crate) fn config(&self, verify: bool) -> Arc<ClientConfig> {
        if verify { self.verified.clone() } else { self.unverified.clone() }
    }
}

fn config(
    provider: &Arc<CryptoProvider>,
    verifier: Arc<dyn ServerCertVerifier>,
) -> Result<Arc<ClientConfig>, Failure> {
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| Failure::new(Class::Unknown, format!("TLS cannot be set up: {e}")))?;
    let mut config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The usual verification, with two additions: it tells a self-signed certificate from an unknown authority, and
/// it accepts a certificate that is itself one of the roots although it is marked as a CA, as `openssl req -x509`
/// makes them and as Go's runtimes accept them.
#[derive(Debug)]
struct Explaining {
    /// Absent without a single root: then nothing can be verified.
    inner: Option<Arc<WebPkiServerVerifier>>,
    trusted: HashSet<Vec<u8>>,
    provider: Arc<CryptoProvider>,
}

#[derive(Debug)]
struct SelfSigned;

impl std::fmt::Display for SelfSigned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("it is self-signed")
    }
}

impl std::error::Error for SelfSigned {}

impl Explaining {
    fn new(certificates: Vec<CertificateDer<'static>>, provider: &Arc<CryptoProvider>) -> Self {
        let trusted = certificates.iter().map(|c| c.to_vec()).collect();
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(certificates);
        Self { inner: verifier(roots, provider), trusted, provider: provider.clone() }
    }

    /// Whether the certificate is signed by itself: then it verifies, or fails differently, as its own root.
    fn is_self_signed(&self, end_entity: &CertificateDer<'_>, name: &ServerName<'_>, now: UnixTime) -> bool {
        let mut own = RootCertStore::empty();
        if own.add(end_entity.clone().into_owned()).is_err() {
            return false;
        }
        let unknown = Error::InvalidCertificate(CertificateError::UnknownIssuer);
        verifier(own, &self.provider)
            .is_some_and(|v| v.verify_server_cert(end_entity, &[], name, &[], now).err() != Some(unknown))
    }
}

fn verifier(roots: RootCertStore, provider: &Arc<CryptoProvider>) -> Option<Arc<WebPkiServerVerifier>> {
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().ok()
}

impl ServerCertVerifier for Explaining {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let unknown = Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let Some(inner) = &self.inner else { return Err(unknown) };
        let found = inner.verify_server_cert(end_entity, intermediates, name, ocsp, now);
        match found {
            // Its dates were checked before its kind (webpki, check_issuer_independent_properties); the name was not.
            Err(Error::InvalidCertificate(CertificateError::Other(_)))
                if self.trusted.contains(end_entity.as_ref()) =>
            {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            Err(Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::Other(_)))
                if self.is_self_signed(end_entity, name, now) =>
            {
                Err(Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(SelfSigned)))))
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Takes any certificate, for hosts listed as skip-verify. The handshake itself is still checked.
#[derive(Debug)]
struct Blind {
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Blind {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Why a handshake failed: class and reason.
pub(crate) fn explain(error: &io::Error) -> Option<(Class, String)> {
    let error = error.get_ref()?.downcast_ref::<Error>()?;
    Some(match error {
        Error::InvalidCertificate(reason) => (Class::Certificate, format!("x509: {}", certificate(reason))),
        Error::NoCertificatesPresented | Error::UnsupportedNameType => {
            (Class::Certificate, "x509: the server shows no usable certificate".into())
        }
        // What is not even a TLS record is, in practice, an HTTP server that complains about the hello.
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            (Class::PlainHttp, Class::PlainHttp.phrase().into())
        }
        other => (Class::Network, format!("the TLS handshake failed: {other}")),
    })
}

fn certificate(reason: &CertificateError) -> String {
    use CertificateError as E;
    match reason {
        E::UnknownIssuer => "certificate signed by unknown authority".into(),
        E::Expired | E::ExpiredContext { .. } => "certificate has expired".into(),
        E::NotValidYet | E::NotValidYetContext { .. } => "certificate is not yet valid".into(),
        E::NotValidForName => "certificate is valid for another name, not for this host".into(),
        E::NotValidForNameContext { presented, .. } => {
            let names: Vec<String> = presented.iter().take(3).map(|n| n.chars().take(60).collect()).collect();
            format!("certificate is valid for {}, not for this host", names.join(", "))
        }
        E::Other(other) if other.0.is::<SelfSigned>() => {
            "certificate signed by unknown authority (it is self-signed)".into()
        }
        other => format!("certificate is not valid: {other}").chars().take(200).collect(),
    }
}
