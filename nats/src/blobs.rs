//! Blobs: what is too large for a message, in the object store `air-blobs`.

use tokio::io::AsyncReadExt as _;

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

    /// Deletes the blob of a name; one that is not there is no error.
    ///
    /// # Errors
    /// [`Error`] when NATS does not answer as it should.
    pub async fn delete_blob(&self, name: &str) -> Result<(), Error> {
        use async_nats::jetstream::object_store::DeleteErrorKind;
        match self.blobs().await?.delete(name).await {
            Err(error) if error.kind() != DeleteErrorKind::NotFound => Err(Error::closed(error)),
            _ => Ok(()),
        }
    }
}
