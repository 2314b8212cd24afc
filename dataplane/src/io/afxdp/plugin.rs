//! The AF_XDP device plugin of Kubernetes: it attached an XDP program of its own to a device and hands out the map that the
//! program finds sockets in, so that a container needs no right to load programs.
//!
//! The handshake (version 0.1) is text over a SOCK_SEQPACKET socket: `/connect,<host name>` is answered by `/host_ok`,
//! `/xsk_map_fd,<device>` by `/fd_ack` with the map's descriptor (SCM_RIGHTS, unix(7)), `/fin` by `/fin_ack`.

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Where the plugin puts a directory for each device.
const DIRECTORY: &str = "/tmp/afxdp_dp";
/// Where plugins of before put the one socket of a container.
const OLD_SOCKET: &str = "/tmp/afxdp.sock";
/// The largest message.
const MESSAGE: usize = 64;
/// How long the plugin may take to answer, in seconds.
const PATIENCE: libc::time_t = 5;

/// Why the plugin gave no map, in words for the operator.
#[derive(Debug)]
pub(super) struct PluginError(String);

impl fmt::Display for PluginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where the pinned map of a device is.
pub(super) fn pinned(device: &str) -> PathBuf {
    Path::new(DIRECTORY).join(device).join("xsks_map")
}

/// Asks the plugin for the map of a device's sockets.
pub(super) fn ask(device: &str) -> Result<OwnedFd, PluginError> {
    let own = Path::new(DIRECTORY).join(device).join("afxdp.sock");
    let path = if own.exists() || !Path::new(OLD_SOCKET).exists() { own } else { OLD_SOCKET.into() };
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    ask_at(&path, host.trim(), device)
        .map_err(|error| PluginError(format!("the AF_XDP device plugin at {}: {error}", path.display())))
}

fn ask_at(path: &Path, host: &str, device: &str) -> Result<OwnedFd, String> {
    let said = |error: io::Error| error.to_string();
    let plugin = Connection::open(path).map_err(said)?;
    let (answer, _) = plugin.exchange(&format!("/connect,{host}")).map_err(said)?;
    if answer != "/host_ok" {
        return Err(format!(
            "it does not know the pod `{host}` ({answer}); did the container get the plugin's resource?"
        ));
    }
    let (answer, map) = plugin.exchange(&format!("/xsk_map_fd,{device}")).map_err(said)?;
    // The map is ours whatever becomes of the farewell.
    let _ = plugin.exchange("/fin");
    match (answer.as_str(), map) {
        ("/fd_ack", Some(map)) => Ok(map),
        ("/fd_ack", None) => Err("it sent no descriptor".to_owned()),
        _ => {
            Err(format!("it gives no map for `{device}` ({answer}); is the device one of this container's?"))
        }
    }
}

/// A connection to the plugin.
struct Connection(OwnedFd);

impl Connection {
    fn open(path: &Path) -> io::Result<Self> {
        // SAFETY: plain system call.
        let fd = unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a fresh descriptor that nobody else owns.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        let limit = libc::timeval { tv_sec: PATIENCE, tv_usec: 0 };
        for option in [libc::SO_RCVTIMEO, libc::SO_SNDTIMEO] {
            // SAFETY: the pointer and the length are those of a live value.
            let result = unsafe {
                libc::setsockopt(
                    socket.as_raw_fd(),
                    libc::SOL_SOCKET,
                    option,
                    (&raw const limit).cast(),
                    size_of_val(&limit) as libc::socklen_t,
                )
            };
            if result != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        // SAFETY: all-zero is a valid sockaddr_un.
        let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
        address.sun_family = libc::AF_UNIX as libc::sa_family_t;
        let bytes = path.as_os_str().as_bytes();
        // One byte stays zero.
        if bytes.len() >= address.sun_path.len() {
            return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
        }
        for (to, from) in address.sun_path.iter_mut().zip(bytes) {
            *to = *from as libc::c_char;
        }
        // SAFETY: the pointer and the length are those of a live address.
        let result = unsafe {
            libc::connect(
                socket.as_raw_fd(),
                (&raw const address).cast(),
                size_of_val(&address) as libc::socklen_t,
            )
        };
        if result == 0 { Ok(Self(socket)) } else { Err(io::Error::last_os_error()) }
    }

    /// Sends a message and waits for its answer, with the descriptor that came beside it.
    fn exchange(&self, message: &str) -> io::Result<(String, Option<OwnedFd>)> {
        if message.len() > MESSAGE {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("`{message}` is longer than {MESSAGE} bytes"),
            ));
        }
        // SAFETY: the pointer and the length are those of a live text.
        let sent = unsafe {
            libc::send(self.0.as_raw_fd(), message.as_ptr().cast(), message.len(), libc::MSG_NOSIGNAL)
        };
        if sent < 0 {
            return Err(io::Error::last_os_error());
        }
        self.receive()
    }

    fn receive(&self) -> io::Result<(String, Option<OwnedFd>)> {
        let mut bytes = [0u8; MESSAGE];
        // Room for the header and one descriptor, aligned as the header is.
        let mut control = [0u64; 4];
        let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        // SAFETY: all-zero is a valid msghdr.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        (header.msg_iov, header.msg_iovlen) = (&raw mut part, 1);
        (header.msg_control, header.msg_controllen) = (control.as_mut_ptr().cast(), size_of_val(&control));
        // SAFETY: the header points at live buffers of the lengths that it gives.
        let read = unsafe { libc::recvmsg(self.0.as_raw_fd(), &raw mut header, libc::MSG_CMSG_CLOEXEC) };
        if read < 0 {
            return Err(match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::WouldBlock => {
                    io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {PATIENCE} s"))
                }
                error => error,
            });
        }
        let descriptor = descriptor_in(&header);
        if read == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection"));
        }
        let text = bytes.get(..read as usize).unwrap_or_default();
        // Some fill the message up with zeros.
        let text = String::from_utf8_lossy(text).trim_end_matches('\0').to_owned();
        Ok((text, descriptor))
    }
}

/// The first descriptor that came with a message.
fn descriptor_in(header: &libc::msghdr) -> Option<OwnedFd> {
    // SAFETY: the kernel filled the control buffer, and its length in, and the macros stay within it.
    unsafe {
        let first = libc::CMSG_FIRSTHDR(header);
        let rights = first.as_ref().filter(|first| {
            (first.cmsg_level, first.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS)
                && first.cmsg_len >= libc::CMSG_LEN(size_of::<libc::c_int>() as u32) as usize
        });
        let fd = rights.map(|_| libc::CMSG_DATA(first).cast::<libc::c_int>().read_unaligned())?;
        // The kernel made this descriptor for us, and nobody else knows it.
        (fd >= 0).then(|| OwnedFd::from_raw_fd(fd))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_that_is_not_there_is_said_with_its_path() {
        let error = ask("no-such-dev0").unwrap_err().to_string();
        assert!(error.starts_with("the AF_XDP device plugin at /tmp/afxdp"), "{error}");
        assert!(error.contains("No such file") || error.contains("does not know"), "{error}");
    }

    #[test]
    fn a_path_that_no_socket_can_have_is_refused() {
        let path = PathBuf::from("/".to_owned() + &"x".repeat(200));
        assert!(ask_at(&path, "pod", "eth1").unwrap_err().contains("too long"));
    }
}
