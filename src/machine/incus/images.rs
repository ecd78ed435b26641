use std::path::Path;

use futures::StreamExt;
use reqwest::{Body, Method};
use serde_json::json;
use tokio_util::io::ReaderStream;

use super::{Incus, objects::Alias};
use crate::core::{Code, Problem};

impl Incus {
    /// The fingerprint of the image with this alias.
    pub async fn image(&self, alias: &str) -> Result<Option<String>, Problem> {
        let found: Option<Alias> = self.find(&format!("/images/aliases/{alias}")).await?;
        Ok(found.map(|a| a.target))
    }

    /// Uploads a unified image tarball, streamed from disk, and names it `alias`; returns its fingerprint.
    ///
    /// `sent` is called with the bytes read so far.
    pub async fn import(
        &self,
        file: &Path,
        alias: &str,
        sent: impl Fn(u64) + Send + Sync + 'static,
    ) -> Result<String, Problem> {
        let unreadable = |e| Problem::new(Code::LocalFile, format!("{} cannot be read", file.display())).because(e);
        let reader = tokio::fs::File::open(file).await.map_err(unreadable)?;
        let mut count = 0;
        let stream = ReaderStream::with_capacity(reader, 1 << 18).inspect(move |chunk| {
            count += chunk.as_ref().map_or(0, |c| c.len() as u64);
            sent(count);
        });
        let request = self
            .request(Method::POST, "/images")
            .header("Content-Type", "application/octet-stream")
            .header("X-Incus-filename", format!("{alias}.tar"))
            .body(Body::wrap_stream(stream));
        let fingerprint = match self.finish(&Method::POST, "/images", request).await {
            Ok(done) => done["fingerprint"].as_str().unwrap_or_default().to_owned(),
            // An earlier run was ended between the upload and the alias: Incus knows an image by its digest.
            Err(problem) => match same_image(&problem) {
                Some(_) => digest_of(file).await?,
                None => return Err(problem),
            },
        };
        self.name_image(fingerprint, alias).await
    }

    /// Names an image; returns the fingerprint of the image that has the name then.
    ///
    /// Somebody else who uses the same Incus may have been faster with an image of the same recipe: theirs is as good,
    /// and this one goes.
    pub(in crate::machine) async fn name_image(&self, fingerprint: String, alias: &str) -> Result<String, Problem> {
        let name = json!({"name": alias, "target": fingerprint});
        let Err(problem) = self.send(Method::POST, "/images/aliases", &name).await else { return Ok(fingerprint) };
        let named = self.image(alias).await?.ok_or(problem)?;
        if named != fingerprint {
            // One that stays only takes room.
            let _ = self.delete(&format!("/images/{fingerprint}")).await;
        }
        Ok(named)
    }
}

/// Whether Incus refused an image because it has it.
fn same_image(problem: &Problem) -> Option<()> {
    problem.detail.iter().any(|line| line.contains("already exists")).then_some(())
}

/// Incus's fingerprint of a unified tarball is the SHA-256 of the file.
async fn digest_of(file: &Path) -> Result<String, Problem> {
    let path = file.to_owned();
    let digest = tokio::task::spawn_blocking(move || crate::core::Blob::from_file(&path)).await;
    match digest {
        Ok(Ok(blob)) => Ok(blob.sha256().to_owned()),
        Ok(Err(e)) => Err(Problem::new(Code::LocalFile, format!("{} cannot be read", file.display())).because(e)),
        Err(e) => Err(Problem::new(Code::Internal, "hashing the node image was cut off").because(e)),
    }
}
