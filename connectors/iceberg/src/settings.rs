//! What a warehouse is opened with: which catalog knows its tables, and where their files lie. Secrets come in resolved and never go out:
//! no `Debug`, no message and no serialised form shows them.

use std::fmt;
use std::path::PathBuf;

/// Which catalog, and where the files are.
#[derive(Clone, Debug)]
pub struct WarehouseSettings {
    /// Who knows which metadata file is a table's newest.
    pub catalog: CatalogSettings,
    /// Where files lie.
    pub storage: StorageSettings,
}

impl WarehouseSettings {
    /// A command line by which PyIceberg prints a table; none where it would have to hold keys.
    pub(crate) fn reading_line(&self, table: &str) -> Option<String> {
        let (CatalogSettings::Sqlite { file, name }, StorageSettings::Folder { .. }) = (&self.catalog, &self.storage)
        else {
            return None;
        };
        let file = file.display();
        Some(format!(
            "python3 -c \"from pyiceberg.catalog.sql import SqlCatalog; print(*SqlCatalog('{name}', uri='sqlite:///{file}')\
             .load_table('{table}').scan().to_arrow().to_pylist(), sep='\\n')\""
        ))
    }
}

/// Who knows the tables.
#[derive(Clone, Debug)]
pub enum CatalogSettings {
    /// An SQLite file, in the layout that PyIceberg's `SqlCatalog` and Java's `JdbcCatalog` (V1) share. Several processes may use it.
    Sqlite {
        /// The file; made if it is not there.
        file: PathBuf,
        /// The catalog's name in it; other programs must use the same.
        name: String,
    },
    /// A server that speaks the Iceberg REST protocol.
    Rest {
        /// Its address without `/v1`, as `https://catalog.example:8181`.
        uri: String,
        /// The warehouse to ask it for, where it serves several.
        warehouse: Option<String>,
        /// A bearer token.
        token: Option<Secret>,
    },
}

/// Where files lie.
#[derive(Clone, Debug)]
pub enum StorageSettings {
    /// A folder of this machine, absolute.
    Folder {
        /// The folder under which tables lie.
        path: PathBuf,
    },
    /// A bucket.
    S3 {
        /// The place under which tables lie, as `s3://BUCKET/FOLDER`. A REST catalog chooses the places of tables itself; they must be in
        /// this bucket.
        location: String,
        /// The service.
        s3: S3Settings,
    },
}

/// An S3 service.
#[derive(Clone, Debug)]
pub struct S3Settings {
    /// Its address, where it is not Amazon's.
    pub endpoint: Option<String>,
    /// Its region.
    pub region: String,
    /// Whether the bucket stands in the path (MinIO) and not in the host's name (Amazon).
    pub path_style: bool,
    /// The keys to sign with; without them the machine's role is asked for some.
    pub keys: Option<S3Keys>,
}

/// A pair of S3 keys.
#[derive(Clone, Debug)]
pub struct S3Keys {
    /// The public half.
    pub access_key: String,
    /// The secret half.
    pub secret_key: Secret,
}

/// A secret that no `{:?}` shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a resolved secret.
    pub fn new(secret: impl Into<String>) -> Secret {
        Secret(secret.into())
    }

    /// The secret itself, for the one call that needs it.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}
