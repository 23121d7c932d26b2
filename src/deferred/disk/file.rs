//! The file: three tables of a `redb` database, by the ids of the requests.

use std::{fs::File, io, path::Path};

use bytes::Bytes;
use redb::{
    Database, ReadableTable, Table, TableDefinition, TableError, WriteTransaction,
    backends::InMemoryBackend,
};

use super::super::{
    board::Record,
    error::{StoreError, StoreErrorKind},
    id::RequestId,
};

const RECORDS: Definition = TableDefinition::new("records");
const REQUESTS: Definition = TableDefinition::new("requests");
const RESPONSES: Definition = TableDefinition::new("responses");

type Definition = TableDefinition<'static, [u8; 16], &'static [u8]>;

/// Opens the file, or makes it. Without one everything is in memory.
pub(super) fn open(path: Option<&Path>) -> Result<Database, StoreError> {
    let mut builder = Database::builder();
    // The next major version of redb reads it.
    builder.create_with_file_format_v3(true).set_cache_size(CACHE);
    let database = match path {
        Some(path) => builder.create_file(open_file(path)?),
        None => builder.create_with_backend(InMemoryBackend::new()),
    };
    let database = database.map_err(failed)?;
    // Nothing is written that need not be: the disk may be full.
    let has_tables = database.begin_read().map_err(failed)?.open_table(RECORDS);
    if let Err(TableError::TableDoesNotExist(_)) = has_tables {
        let begun = database.begin_write().map_err(failed)?;
        for table in [RECORDS, REQUESTS, RESPONSES] {
            begun.open_table(table).map_err(failed)?;
        }
        begun.commit().map_err(failed)?;
    }
    Ok(database)
}

/// What callers send may be private: nobody else reads it.
fn open_file(path: &Path) -> Result<File, StoreError> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path).map_err(redb::Error::Io).map_err(failed)?;
    #[cfg(unix)]
    if let Some(folder) = path.parent() {
        // Otherwise the file could be gone after a failure of power, with all that it has. One that
        // is there may be of a process that ended before it came to this.
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(redb::Error::Io).map_err(failed)?;
    }
    Ok(file)
}

/// All records of the file.
pub(super) fn records(database: &Database) -> Result<Vec<(RequestId, Record)>, StoreError> {
    let reading = database.begin_read().map_err(failed)?;
    let table = reading.open_table(RECORDS).map_err(failed)?;
    let mut records = Vec::new();
    for row in table.iter().map_err(failed)? {
        let (id, bytes) = row.map_err(failed)?;
        let record = Record::decode(bytes.value()).ok_or_else(malformed)?;
        records.push((RequestId::from_bytes(id.value()), record));
    }
    Ok(records)
}

/// The tables, as one transaction sees and changes them.
pub(super) struct Tables<'t> {
    records: Table<'t, [u8; 16], &'static [u8]>,
    requests: Table<'t, [u8; 16], &'static [u8]>,
    responses: Table<'t, [u8; 16], &'static [u8]>,
}

impl<'t> Tables<'t> {
    pub(super) fn open(transaction: &'t WriteTransaction) -> Result<Self, StoreError> {
        Ok(Self {
            records: transaction.open_table(RECORDS).map_err(failed)?,
            requests: transaction.open_table(REQUESTS).map_err(failed)?,
            responses: transaction.open_table(RESPONSES).map_err(failed)?,
        })
    }

    pub(super) fn put_request(&mut self, id: &RequestId, bytes: &[u8]) -> Result<(), StoreError> {
        self.requests.insert(id.as_bytes(), bytes).map(drop).map_err(failed)
    }

    pub(super) fn put_response(&mut self, id: &RequestId, bytes: &[u8]) -> Result<(), StoreError> {
        self.responses.insert(id.as_bytes(), bytes).map(drop).map_err(failed)
    }

    pub(super) fn request(&self, id: &RequestId) -> Result<Option<Bytes>, StoreError> {
        let found = self.requests.get(id.as_bytes()).map_err(failed)?;
        Ok(found.map(|bytes| Bytes::copy_from_slice(bytes.value())))
    }

    pub(super) fn response(&self, id: &RequestId) -> Result<Option<Bytes>, StoreError> {
        let found = self.responses.get(id.as_bytes()).map_err(failed)?;
        Ok(found.map(|bytes| Bytes::copy_from_slice(bytes.value())))
    }

    /// Writes down what became of a request. What it needs no more goes.
    pub(super) fn write(
        &mut self,
        id: &RequestId,
        record: Option<&Record>,
    ) -> Result<(), StoreError> {
        let id = id.as_bytes();
        match record {
            Some(record) => {
                self.records.insert(id, record.encode().as_slice()).map_err(failed)?;
                if record.state().is_end() {
                    self.requests.remove(id).map_err(failed)?;
                }
            }
            None => {
                self.records.remove(id).map_err(failed)?;
                self.requests.remove(id).map_err(failed)?;
                self.responses.remove(id).map_err(failed)?;
            }
        }
        Ok(())
    }
}

pub(super) fn malformed() -> StoreError {
    StoreError::new(StoreErrorKind::Malformed)
}

pub(super) fn failed(error: impl Into<redb::Error>) -> StoreError {
    let error = error.into();
    let kind = match &error {
        redb::Error::Io(error) if is_full(error) => StoreErrorKind::NoSpace,
        redb::Error::Corrupted(_) | redb::Error::TableTypeMismatch { .. } => {
            StoreErrorKind::Malformed
        }
        _ => StoreErrorKind::Unavailable,
    };
    StoreError::new(kind).with_source(error)
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

/// Pages that are kept in memory, in bytes: those that are read again are few.
const CACHE: usize = 16 << 20;
