//! Sockets that an earlier process left in the file system: DPDK's memif and vhost-user servers do not bind to a name that is taken,
//! so that one that was killed could not be started again.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// Removes the socket that a device with these arguments will listen on, if nobody listens there any more.
pub(super) fn remove(devargs: &str) {
    if let Some(path) = server(devargs).filter(|path| is_stale(path)) {
        // What is wrong with it, the driver says.
        let _ = fs::remove_file(path);
    }
}

/// The path that a device with these arguments will listen on.
fn server(devargs: &str) -> Option<PathBuf> {
    let (name, arguments) = devargs.split_once(',')?;
    let value = |key: &str| {
        let mut pairs = arguments.split(',').filter_map(|argument| argument.split_once('='));
        pairs.find(|(have, _)| *have == key).map(|(_, value)| value)
    };
    let path = if name.starts_with("net_memif") {
        let listens =
            matches!(value("role"), Some("server" | "master")) && value("socket-abstract") == Some("no");
        value("socket").filter(|_| listens)
    } else if name.starts_with("net_vhost") || name.starts_with("eth_vhost") {
        value("iface").filter(|_| value("client") != Some("1"))
    } else {
        None
    };
    path.map(PathBuf::from)
}

/// Whether there is a socket whose owner is gone.
fn is_stale(path: &Path) -> bool {
    let socket = fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    // A listener of another type of sockets, as memif has, refuses in another way.
    socket && UnixStream::connect(path).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn only_servers_listen() {
        let path = |devargs| server(devargs).map(|path| path.display().to_string());
        assert_eq!(path("net_memif0,role=server,id=1,socket=/a,socket-abstract=no").as_deref(), Some("/a"));
        assert_eq!(path("net_memif0,role=server,socket=/a"), None, "an abstract name is in no file system");
        assert_eq!(path("net_memif0,role=client,socket=/a,socket-abstract=no"), None);
        assert_eq!(path("net_vhost0,iface=/b").as_deref(), Some("/b"));
        assert_eq!(path("net_vhost0,iface=/b,client=1"), None);
        assert_eq!(path("net_pcap0,iface=/b"), None);
        assert_eq!(path("net_null0"), None);
    }

    #[test]
    fn what_somebody_listens_on_stays_and_what_is_no_socket_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.sock");
        let devargs = format!("net_vhost0,iface={}", path.display());
        let listener = UnixListener::bind(&path).unwrap();
        remove(&devargs);
        assert!(path.exists());
        drop(listener);
        remove(&devargs);
        assert!(!path.exists());
        fs::write(&path, "precious").unwrap();
        remove(&devargs);
        assert!(path.exists());
    }
}
