use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

use russh::keys::{Algorithm, PrivateKey, PublicKey, ssh_key::LineEnding};

use crate::{
    core::{Code, Problem, Secret},
    hub::private::make_folder,
};

/// A private ed25519 key of the hub: its user CA, or the key that signs plans.
///
/// They are two keys on purpose: who can sign a plan cannot sign a certificate.
#[derive(Clone)]
pub struct HubKey(PrivateKey);

impl HubKey {
    /// Makes a new key that is kept nowhere.
    pub fn generate(comment: &str) -> Result<Self, Problem> {
        let mut key = PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519)
            .map_err(|e| Problem::new(Code::Internal, "making a key of the hub").because(e))?;
        key.set_comment(comment);
        Ok(Self(key))
    }

    /// Reads the key of this file, or makes the file with a new key.
    ///
    /// The file has mode 0600 from its first byte.
    pub fn load_or_make(file: &Path, comment: &str) -> Result<Self, Problem> {
        match fs::symlink_metadata(file) {
            Ok(_) => Self::load(file),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let key = Self::generate(comment)?;
                key.save_new(file)?;
                // Another hub on the same folder may have been faster: the file decides.
                Self::load(file)
            }
            Err(e) => Err(unusable(file).because(e)),
        }
    }

    /// Reads a key file; one that others may read is refused.
    pub fn load(file: &Path) -> Result<Self, Problem> {
        let mode = fs::metadata(file).map_err(|e| unusable(file).because(e))?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(unusable(file)
                .detail([format!("its mode is {:04o}", mode & 0o7777)])
                .hint(format!("Make it private: chmod 600 {}. Renew it if others may have read it.", file.display())));
        }
        let text = fs::read_to_string(file).map_err(|e| unusable(file).because(e))?;
        let key = PrivateKey::from_openssh(&text).map_err(|e| unusable(file).because(e))?;
        if key.is_encrypted() || key.algorithm() != Algorithm::Ed25519 {
            return Err(unusable(file).detail(["it must be an ed25519 key without pass phrase"]));
        }
        Ok(Self(key))
    }

    /// Its public half, as one line of an OpenSSH public key file.
    pub fn public_line(&self) -> Result<String, Problem> {
        self.0.public_key().to_openssh().map_err(|e| Problem::new(Code::Internal, "a key of the hub").because(e))
    }

    /// Its public half.
    pub fn public(&self) -> &PublicKey {
        self.0.public_key()
    }

    pub(super) fn private(&self) -> &PrivateKey {
        &self.0
    }

    /// Writes the whole key under another name first: a reader never sees half of it.
    fn save_new(&self, file: &Path) -> Result<(), Problem> {
        let text = self.0.to_openssh(LineEnding::LF).map_err(|e| unusable(file).because(e))?;
        let text = Secret::new(text.as_str());
        let part = file.with_extension(format!("part-{}", std::process::id()));
        let wrote = || -> std::io::Result<()> {
            if let Some(folder) = file.parent() {
                make_folder(folder)?;
            }
            let _ = fs::remove_file(&part);
            let mut out = File::options().create_new(true).write(true).mode(0o600).open(&part)?;
            out.write_all(text.expose().as_bytes())?;
            out.sync_all()?;
            match fs::hard_link(&part, file) {
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
                other => other,
            }
        };
        let ended = wrote();
        let _ = fs::remove_file(&part);
        ended.map_err(|e| unusable(file).because(e))
    }
}

fn unusable(file: &Path) -> Problem {
    Problem::new(Code::GateKey, format!("the hub's key {} cannot be used", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("new/ca");
        let made = HubKey::load_or_make(&file, "kubecamp user CA").unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o600);
        let folder = fs::metadata(file.parent().unwrap()).unwrap();
        assert_eq!(folder.permissions().mode() & 0o7777, 0o700);
        assert_eq!(HubKey::load_or_make(&file, "x").unwrap().public(), made.public());
        assert_eq!(fs::read_dir(file.parent().unwrap()).unwrap().count(), 1, "no part is left");
        assert!(made.public_line().unwrap().starts_with("ssh-ed25519 "));
    }

    #[test]
    fn a_key_that_others_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ca");
        HubKey::load_or_make(&file, "x").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(HubKey::load_or_make(&file, "x").err().unwrap().code, Code::GateKey);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&file, "no key").unwrap();
        assert_eq!(HubKey::load(&file).err().unwrap().code, Code::GateKey);
    }
}
