//! Very long payloads, in a location beside the server: a folder that all machines share, or S3.
//!
//! An object has the name QUEUE/SESSION/HASH below the location. Messages have the hash and the length, which the receiver
//! checks. The party that needs an object no more removes it, as with the server's stream of payloads. But here nothing goes
//! by age: objects of a client that was killed stay.

#![forbid(unsafe_code)]

use crate::error::{ClusterError, ObjectStoreError};
use crate::wire::{Id, hex};
use bytes::Bytes;
use std::fmt;

/// The length above which payloads go to the location, unless the builder sets another one.
pub(crate) const ABOVE: u64 = 64 << 20;

/// The name of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) queue: String,
    pub(crate) session: Id,
    pub(crate) hash: [u8; 32],
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            queue,
            session,
            hash,
        } = self;
        write!(f, "{queue}/{session}/{}", hex(hash))
    }
}

/// A location of objects.
pub(crate) struct Objects {
    place: String,
    above: u64,
    store: store::Store,
}

impl Objects {
    /// Opens a location. Payloads that are longer than `above` bytes go there.
    pub(crate) fn open(place: String, above: u64) -> Result<Self, ClusterError> {
        match store::Store::open(&place) {
            Ok(store) => Ok(Self {
                place,
                above,
                store,
            }),
            Err(cause) => Err(ObjectStoreError::new(&place, "it cannot be opened", cause).into()),
        }
    }

    /// Returns whether a payload of this length goes to the location.
    pub(crate) fn takes(&self, length: u64) -> bool {
        length > self.above
    }

    fn failed(&self, what: &str, name: &dyn fmt::Display, cause: store::Cause) -> ObjectStoreError {
        ObjectStoreError::new(&self.place, &format!("{name} could not be {what}"), cause)
    }

    pub(crate) async fn put(&self, name: &Name, bytes: Bytes) -> Result<(), ObjectStoreError> {
        let put = self.store.put(&name.to_string(), bytes).await;
        put.map_err(|cause| self.failed("written", name, cause))
    }

    /// Returns an object; none if it is not there, or has another length.
    pub(crate) async fn get(
        &self,
        name: &Name,
        length: u64,
    ) -> Result<Option<Bytes>, ObjectStoreError> {
        let got = self.store.get(&name.to_string(), length).await;
        got.map_err(|cause| self.failed("read", name, cause))
    }

    pub(crate) async fn delete(&self, name: &Name) -> Result<(), ObjectStoreError> {
        let deleted = self.store.delete(&name.to_string()).await;
        deleted.map_err(|cause| self.failed("removed", name, cause))
    }

    /// Removes all objects of a session.
    pub(crate) async fn delete_all(
        &self,
        queue: &str,
        session: Id,
    ) -> Result<(), ObjectStoreError> {
        let folder = format!("{queue}/{session}");
        let deleted = self.store.delete_all(&folder).await;
        deleted.map_err(|cause| self.failed("removed", &folder, cause))
    }
}

impl fmt::Debug for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Objects")
            .field("place", &self.place)
            .field("above", &self.above)
            .finish_non_exhaustive()
    }
}

#[cfg(feature = "object-store")]
mod store {
    use bytes::Bytes;
    use futures_util::{StreamExt, TryStreamExt};
    use object_store::local::LocalFileSystem;
    use object_store::path::Path;
    use object_store::{Error, ObjectStore, ObjectStoreExt, PutPayload};
    use std::fs;
    use std::io;
    use std::path::PathBuf;
    use url::Url;

    pub(super) type Cause = Box<dyn std::error::Error + Send + Sync>;

    pub(super) struct Store {
        objects: Box<dyn ObjectStore>,
        root: Path,
        /// The folder, which is not made again when it is gone: it may be a disk that is not mounted.
        folder: Option<PathBuf>,
    }

    impl Store {
        pub(super) fn open(place: &str) -> Result<Self, Cause> {
            let url = Url::parse(place)?;
            if url.scheme() == "file" {
                let folder = url
                    .to_file_path()
                    .map_err(|()| io::Error::from(io::ErrorKind::InvalidInput))?;
                check(&folder)?;
                // The folders of a queue and of a session go with their last object.
                let folder_store =
                    LocalFileSystem::new_with_prefix(&folder)?.with_automatic_cleanup(true);
                return Ok(Self {
                    objects: Box::new(folder_store),
                    root: Path::default(),
                    folder: Some(folder),
                });
            }
            let options = std::env::vars().map(|(key, value)| (key.to_ascii_lowercase(), value));
            let (objects, root) = object_store::parse_url_opts(&url, options)?;
            Ok(Self {
                objects,
                root,
                folder: None,
            })
        }

        fn path(&self, name: &str) -> Result<Path, Cause> {
            if let Some(folder) = &self.folder {
                check(folder)?;
            }
            let parts = self.root.parts().map(|part| part.as_ref().to_owned());
            let names = name.split('/').map(ToOwned::to_owned);
            Ok(parts.chain(names).collect())
        }

        pub(super) async fn put(&self, name: &str, bytes: Bytes) -> Result<(), Cause> {
            let path = self.path(name)?;
            self.objects.put(&path, PutPayload::from(bytes)).await?;
            Ok(())
        }

        pub(super) async fn get(&self, name: &str, length: u64) -> Result<Option<Bytes>, Cause> {
            let path = self.path(name)?;
            match self.objects.get(&path).await {
                Ok(found) if found.meta.size == length => Ok(Some(found.bytes().await?)),
                Ok(_) | Err(Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(error.into()),
            }
        }

        pub(super) async fn delete(&self, name: &str) -> Result<(), Cause> {
            let path = self.path(name)?;
            match self.objects.delete(&path).await {
                Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
                Err(error) => Err(error.into()),
            }
        }

        pub(super) async fn delete_all(&self, folder: &str) -> Result<(), Cause> {
            let path = self.path(folder)?;
            let listed = self.objects.list(Some(&path));
            let paths = listed.map_ok(|found| found.location).boxed();
            let deleted: Vec<_> = self.objects.delete_stream(paths).try_collect().await?;
            drop(deleted);
            Ok(())
        }
    }

    fn check(folder: &std::path::Path) -> io::Result<()> {
        if fs::metadata(folder)?.is_dir() {
            Ok(())
        } else {
            Err(io::ErrorKind::NotADirectory.into())
        }
    }
}

/// Stands for object stores in builds without them.
#[cfg(not(feature = "object-store"))]
mod store {
    use bytes::Bytes;
    use std::future::Ready;

    pub(super) type Cause = Box<dyn std::error::Error + Send + Sync>;

    pub(super) enum Store {}

    impl Store {
        pub(super) fn open(_: &str) -> Result<Self, Cause> {
            Err(
                "this program has no object stores: build it with the feature `object-store`"
                    .into(),
            )
        }

        pub(super) fn put(&self, _: &str, _: Bytes) -> Ready<Result<(), Cause>> {
            match *self {}
        }

        pub(super) fn get(&self, _: &str, _: u64) -> Ready<Result<Option<Bytes>, Cause>> {
            match *self {}
        }

        pub(super) fn delete(&self, _: &str) -> Ready<Result<(), Cause>> {
            match *self {}
        }

        pub(super) fn delete_all(&self, _: &str) -> Ready<Result<(), Cause>> {
            match *self {}
        }
    }
}
