//! Blobs: what is too large for a message, in the object store `air-blobs`.

use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE;
use tokio::io::AsyncReadExt as _;
use uuid::Uuid;

use crate::{Error, Nats};

impl Nats {
    async fn blobs(&self) -> Result<async_nats::jetstream::object_store::ObjectStore, Error> {
        self.context
            .get_object_store(&self.names.blobs_bucket())
            .await
            .map_err(Error::closed)
    }

    /// Stores a blob under a name; one that is there is replaced.
    ///
    /// # Errors
    /// [`Error`] when NATS does not store it.
    pub async fn put_blob(&self, name: &str, mut bytes: &[u8]) -> Result<(), Error> {
        self.blobs()
            .await?
            .put(name, &mut bytes)
            .await
            .map(drop)
            .map_err(Error::closed)
    }

    /// Stores a file as a blob, without ever holding all of it; one that is there is replaced.
    ///
    /// # Errors
    /// [`Error`] when the file cannot be read, or NATS does not store it.
    pub async fn put_blob_file(&self, name: &str, path: &Path) -> Result<(), Error> {
        let mut file = tokio::fs::File::open(path).await.map_err(Error::answer)?;
        let stored = self.blobs().await?.put(name, &mut file).await;
        stored.map(drop).map_err(Error::closed)
    }

    /// The blob of a name; none when there is none.
    ///
    /// # Errors
    /// [`Error`] when NATS does not answer as it should.
    pub async fn get_blob(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        use async_nats::jetstream::object_store::GetErrorKind;
        let mut object = match self.blobs().await?.get(name).await {
            Ok(object) => object,
            Err(error) if error.kind() == GetErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::closed(error)),
        };
        let mut bytes = Vec::new();
        object
            .read_to_end(&mut bytes)
            .await
            .map_err(Error::answer)?;
        Ok(Some(bytes))
    }

    /// Whether there is a blob of a name.
    ///
    /// # Errors
    /// [`Error`] when NATS does not answer as it should.
    pub async fn has_blob(&self, name: &str) -> Result<bool, Error> {
        use async_nats::jetstream::object_store::InfoErrorKind;
        match self.blobs().await?.info(name).await {
            Ok(info) => Ok(!info.deleted),
            Err(error) if error.kind() == InfoErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::closed(error)),
        }
    }

    /// Deletes the blob of a name and every trace of it; says whether there was one.
    ///
    /// # Errors
    /// [`Error`] when NATS does not answer as it should.
    pub async fn delete_blob(&self, name: &str) -> Result<bool, Error> {
        use async_nats::jetstream::object_store::DeleteErrorKind;
        match self.blobs().await?.delete(name).await {
            Err(error) if error.kind() == DeleteErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(Error::closed(error)),
            Ok(()) => {}
        }
        // The object store keeps a marker of what was deleted, for ever.
        let bucket = self.names.blobs_bucket();
        let marker = format!("$O.{bucket}.M.{}", BASE64_URL_SAFE.encode(name));
        self.purge(&format!("OBJ_{bucket}"), &marker, None).await?;
        Ok(true)
    }

    /// Deletes what a run stored that will never commit: its output, and the pages of its fan-out.
    ///
    /// # Errors
    /// [`Error`] when NATS does not answer as it should.
    pub async fn delete_blobs_of(&self, run: Uuid) -> Result<(), Error> {
        self.delete_blob(&run.to_string()).await?;
        for page in 1_u64.. {
            if !self.delete_blob(&format!("{run}.{page}")).await? {
                break;
            }
        }
        Ok(())
    }
}
