//! A record in memory and on disk.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use corten_state::Store;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Error, Result};

/// A record that is read from memory and changed on disk first.
pub(crate) struct Entry<R> {
    id: String,
    store: Store<R>,
    current: RwLock<Arc<R>>,
    /// Held while a change is written: changes reach the disk in the order in which they are made.
    saving: tokio::sync::Mutex<()>,
}

impl<R> fmt::Debug for Entry<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("id", &self.id).finish_non_exhaustive()
    }
}

impl<R: Clone + Serialize + DeserializeOwned + Send + Sync + 'static> Entry<R> {
    /// A record that is on disk already.
    pub(crate) fn loaded(store: &Store<R>, id: &str, record: R) -> Self {
        Self {
            id: id.to_owned(),
            store: store.clone(),
            current: RwLock::new(Arc::new(record)),
            saving: tokio::sync::Mutex::new(()),
        }
    }

    /// A new record, written before this returns.
    pub(crate) async fn new(store: &Store<R>, id: &str, record: R) -> Result<Self> {
        let entry = Self::loaded(store, id, record);
        entry.write(entry.get()).await?;
        Ok(entry)
    }

    /// The record as it is.
    pub(crate) fn get(&self) -> Arc<R> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the record on disk, then in memory.
    ///
    /// # Errors
    ///
    /// If it can't be written; then nothing has changed.
    pub(crate) async fn update(&self, change: impl FnOnce(&mut R) + Send) -> Result<Arc<R>> {
        let _order = self.saving.lock().await;
        let mut record = R::clone(&self.get());
        change(&mut record);
        let record = Arc::new(record);
        self.write(Arc::clone(&record)).await?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&record);
        Ok(record)
    }

    /// Removes the record from disk.
    pub(crate) async fn forget(&self) -> Result<()> {
        let _order = self.saving.lock().await;
        let (store, id) = (self.store.clone(), self.id.clone());
        crate::blocking(move || store.remove(&id).map(drop))
            .await?
            .map_err(Error::internal(format!("remove the record of {}", self.id)))
    }

    async fn write(&self, record: Arc<R>) -> Result<()> {
        let (store, id) = (self.store.clone(), self.id.clone());
        crate::blocking(move || store.put(&id, &record))
            .await?
            .map_err(Error::internal(format!("write the record of {}", self.id)))
    }
}
