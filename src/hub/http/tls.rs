use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use rustls::{
    ServerConfig,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio_rustls::TlsAcceptor;

use crate::core::{Code, Problem};

/// The files are looked at again no sooner than this.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// TLS with a certificate chain and its key, both PEM files; read anew when they change.
pub(super) fn acceptor(cert: &Path, key: &Path) -> Result<TlsAcceptor, Problem> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = ServerConfig::builder().with_no_client_auth();
    let files = Files { cert: cert.to_owned(), key: key.to_owned(), provider: Arc::clone(builder.crypto_provider()) };
    let taken = Taken { stamp: files.stamp(), looked: Instant::now(), pair: files.read()? };
    let mut config = builder.with_cert_resolver(Arc::new(Renewed { files, taken: Mutex::new(taken) }));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// A certificate lives for weeks and a hub for months: whoever renews the files need not stop the hub.
#[derive(Debug)]
struct Renewed {
    files: Files,
    taken: Mutex<Taken>,
}

#[derive(Debug)]
struct Files {
    cert: PathBuf,
    key: PathBuf,
    provider: Arc<CryptoProvider>,
}

/// When both files were last changed.
type Stamp = [Option<SystemTime>; 2];

/// The pair that is shown, and the files that it was looked for in.
#[derive(Debug)]
struct Taken {
    stamp: Stamp,
    looked: Instant,
    pair: Arc<CertifiedKey>,
}

impl Files {
    fn stamp(&self) -> Stamp {
        [&self.cert, &self.key].map(|file| fs::metadata(file).and_then(|m| m.modified()).ok())
    }

    fn read(&self) -> Result<Arc<CertifiedKey>, Problem> {
        let bad = |file: &Path, why: String| {
            Problem::new(Code::HubListen, format!("{} cannot be used for TLS", file.display())).detail([why])
        };
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&self.cert)
            .and_then(Iterator::collect)
            .map_err(|e| bad(&self.cert, e.to_string()))?;
        if chain.is_empty() {
            return Err(bad(&self.cert, "it holds no certificate".into()));
        }
        let private = PrivateKeyDer::from_pem_file(&self.key).map_err(|e| bad(&self.key, e.to_string()))?;
        let pair = CertifiedKey::from_der(chain, private, &self.provider);
        pair.map(Arc::new).map_err(|e| bad(&self.cert, e.to_string()))
    }
}

impl ResolvesServerCert for Renewed {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.looked.elapsed() >= LOOK_AGAIN {
            taken.looked = Instant::now();
            let stamp = self.files.stamp();
            if stamp != taken.stamp {
                taken.stamp = stamp;
                match self.files.read() {
                    Ok(pair) => taken.pair = pair,
                    // Half of it may be written; the other half changes the stamp again.
                    Err(problem) => tracing::warn!(%problem, "the certificate on disk is not taken"),
                }
            }
        }
        Some(Arc::clone(&taken.pair))
    }
}
