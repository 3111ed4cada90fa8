//! Blobs: what is too large for a message, in the object store `air-blobs`.

use std::path::Path;

use async_nats::jetstream::object_store::{
    DeleteErrorKind, InfoErrorKind, ObjectInfo, ObjectStore,
};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE;
use uuid::Uuid;

use crate::request::Backoff;
use crate::{Error, Nats};

/// Times that the same blob lacks a part before that is an error: a replica that lags names one that was replaced.
const LACKS_MAX: u32 = 8;

impl Nats {
    async fn blobs(&self) -> Result<ObjectStore, Error> {
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
    /// Its parts are asked for one by one: the client's own reader waits for ever for those of a blob that is replaced or
    /// deleted while it is read.
    ///
    /// # Errors
    /// [`Error`] when NATS does not answer as it should, or keeps only a part of the blob.
    pub async fn get_blob(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let (mut before, mut times, mut backoff) = (String::new(), 0, Backoff::new());
        loop {
            let Some(info) = self.blob_info(name).await? else {
                return Ok(None);
            };
            if let Some(bytes) = self.parts_of(&info).await? {
                return Ok(Some(bytes));
            }
            times = if info.nuid == before { times + 1 } else { 1 };
            if times == LACKS_MAX {
                return Err(Error::answer(format_args!(
                    "the blob {name} lacks a part of its bytes"
                )));
            }
            before = info.nuid;
            backoff.wait().await;
        }
    }

    /// What is stored under a name.
    async fn blob_info(&self, name: &str) -> Result<Option<ObjectInfo>, Error> {
        match self.blobs().await?.info(name).await {
            Ok(info) => Ok(Some(info).filter(|info| !info.deleted)),
            Err(error) if error.kind() == InfoErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::closed(error)),
        }
    }

    /// All bytes of a blob; none where some are missing, since it was replaced or deleted meanwhile.
    async fn parts_of(&self, info: &ObjectInfo) -> Result<Option<Vec<u8>>, Error> {
        let bucket = self.names.blobs_bucket();
        let (stream, subject) = (
            format!("OBJ_{bucket}"),
            format!("$O.{bucket}.C.{}", info.nuid),
        );
        let (mut bytes, mut from) = (Vec::new(), 1);
        while bytes.len() < info.size {
            let Some(part) = self.next_of_leader(&stream, &subject, from).await? else {
                return Ok(None);
            };
            bytes.extend_from_slice(&part.payload);
            from = part.seq + 1;
        }
        Ok(Some(bytes))
    }

    /// Whether there is a blob of a name.
    ///
    /// # Errors
    /// [`Error`] when NATS does not answer as it should.
    pub async fn has_blob(&self, name: &str) -> Result<bool, Error> {
        Ok(self.blob_info(name).await?.is_some())
    }

    /// Deletes the blob of a name and every trace of it; says whether there was one.
    ///
    /// # Errors
    /// [`Error`] when NATS does not answer as it should.
    pub async fn delete_blob(&self, name: &str) -> Result<bool, Error> {
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
