//! The unix socket's place in the file system: one weir a path, readable and writable by owner and group.

use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

const SOCKET_MODE: u32 = 0o660;
const DIRECTORY_MODE: u32 = 0o755;

/// Why the socket could not be had.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Somebody answers on it.
    #[error("another weir is running: somebody answers on {0}")]
    Busy(PathBuf),
    /// Something else is at its path.
    #[error("{0} exists and is not a socket: it is left alone")]
    NotASocket(PathBuf),
    /// The file system refused.
    #[error("the socket {path}: {error}")]
    Io {
        /// The socket's path.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

/// A listening socket; its file is removed when this is dropped.
#[derive(Debug)]
pub struct BoundSocket {
    /// Listens.
    pub listener: Option<UnixListener>,
    path: PathBuf,
    inode: u64,
}

/// Listens at `path`. A socket file that nobody answers on is replaced.
///
/// # Errors
/// See [`SocketError`].
pub fn bind(path: &Path) -> Result<BoundSocket, SocketError> {
    let refused = |error| SocketError::Io { path: path.to_owned(), error };
    make_directory(path).map_err(refused)?;
    clear(path)?;
    // Bound under another name until its mode is right, so that nobody can connect in between.
    let draft = path.with_extension("new");
    let bound = (|| {
        match fs::remove_file(&draft) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&draft)?;
        fs::set_permissions(&draft, Permissions::from_mode(SOCKET_MODE))?;
        let inode = fs::symlink_metadata(&draft)?.ino();
        fs::rename(&draft, path)?;
        Ok(BoundSocket { listener: Some(listener), path: path.to_owned(), inode })
    })();
    bound.map_err(refused)
}

fn make_directory(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() && !directory.exists() => {
            DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(directory)?;
            fs::set_permissions(directory, Permissions::from_mode(DIRECTORY_MODE))
        }
        _ => Ok(()),
    }
}

/// Makes sure that nobody uses `path`.
fn clear(path: &Path) -> Result<(), SocketError> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(SocketError::Io { path: path.to_owned(), error }),
    };
    if !metadata.file_type().is_socket() {
        return Err(SocketError::NotASocket(path.to_owned()));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|error| SocketError::Io { path: path.to_owned(), error })
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        // A listener whose backlog is full, or that may not be asked, is a listener.
        _ => Err(SocketError::Busy(path.to_owned())),
    }
}

impl Drop for BoundSocket {
    fn drop(&mut self) {
        // Only our own: a successor may have replaced it.
        if fs::symlink_metadata(&self.path).is_ok_and(|metadata| metadata.ino() == self.inode)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!("the socket {} could not be removed: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn the_socket_is_for_owner_and_group_and_goes_with_its_guard() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/weir/weir.sock");
        let socket = bind(&path).unwrap();
        assert_eq!(mode(&path), 0o660);
        assert_eq!(mode(path.parent().unwrap()), 0o755);
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_second_weir_is_refused_while_the_first_one_listens() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("weir.sock");
        let _first = bind(&path).unwrap();
        let error = bind(&path).unwrap_err();
        assert!(error.to_string().starts_with("another weir is running"), "{error}");
        assert!(path.exists());
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_another_file_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("weir.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "left over");
        drop(bind(&path).unwrap());
        fs::write(&path, "precious").unwrap();
        assert!(matches!(bind(&path), Err(SocketError::NotASocket(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }
}
