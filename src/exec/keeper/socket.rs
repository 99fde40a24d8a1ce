//! The keeper's socket: whole messages over SOCK_SEQPACKET (unix(7)). Shell.
//!
//! A packet is a version byte, a form byte, and the message in CBOR. A message that is too long for one packet goes as a sealed
//! memory file whose descriptor travels with the packet: a packet must fit the sender's buffer (about 200 KiB, and raising that
//! needs a privilege), while the environment of one plan may be ten times as long. No call here ever waits.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{self, IoSlice, IoSliceMut, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{
    self, AddressFamily, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr,
    getsockopt, sockopt::PeerCredentials,
};

/// The socket's file name, as [`Layout::keeper_socket`](crate::node::layout::Layout::keeper_socket) has it.
pub(super) const SOCKET_NAME: &str = "keeper.sock";

/// The version of the packet's form, not of the messages in it.
const PACKET_VERSION: u8 = 1;
/// The message follows in the packet.
const FORM_INLINE: u8 = 0;
/// The message stands in the memory file that came along.
const FORM_FILE: u8 = 1;

/// Longest packet: far below every kernel's default send buffer, so that dozens fit before a sender has to wait.
const PACKET_LEN_MAX: usize = 16 * 1024;
/// Longest message: exec allows 6 MiB of arguments and environment at most (execve(2)), and a plan holds little else.
const MESSAGE_LEN_MAX: u64 = 8 * 1024 * 1024;
/// How many connections may wait to be accepted: there is one node, and it connects once.
const BACKLOG: i32 = 8;

/// One end of a connection between node and keeper.
#[derive(Debug)]
pub(super) struct Socket(OwnedFd);

impl Socket {
    /// Sends one message. `WouldBlock` when the other side is slow: nothing was sent.
    pub(super) fn send<T: minicbor::Encode<()>>(&self, message: &T) -> io::Result<()> {
        let mut packet = vec![PACKET_VERSION, FORM_INLINE];
        minicbor::encode(message, &mut packet).map_err(io::Error::other)?;
        if packet.len() <= PACKET_LEN_MAX {
            return self.send_packet(&packet, None);
        }
        let file = sealed_file(&packet[2..])?;
        self.send_packet(&[PACKET_VERSION, FORM_FILE], Some(file.as_raw_fd()))
    }

    fn send_packet(&self, packet: &[u8], fd: Option<RawFd>) -> io::Result<()> {
        let fds: Vec<RawFd> = fd.into_iter().collect();
        let rights = [ControlMessage::ScmRights(&fds)];
        let control = if fds.is_empty() { &[] } else { &rights[..] };
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        socket::sendmsg::<UnixAddr>(self.0.as_raw_fd(), &[IoSlice::new(packet)], control, flags, None)?;
        Ok(())
    }

    /// The next message; none when the other side has closed. `WouldBlock` when nothing is there yet, `InvalidData` when what
    /// came is no message of ours.
    pub(super) fn receive<T: for<'b> minicbor::Decode<'b, ()>>(&self) -> io::Result<Option<T>> {
        let mut buffer = [0; PACKET_LEN_MAX];
        let mut control = nix::cmsg_space!(RawFd);
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        let (len, file) = {
            let mut parts = [IoSliceMut::new(&mut buffer)];
            let message = socket::recvmsg::<UnixAddr>(self.0.as_raw_fd(), &mut parts, Some(&mut control), flags)?;
            let mut file = None;
            for part in message.cmsgs()? {
                if let ControlMessageOwned::ScmRights(fds) = part {
                    for fd in fds {
                        // SAFETY: the kernel has just made this descriptor for us; nobody else knows of it.
                        file = Some(unsafe { File::from_raw_fd(fd) });
                    }
                }
            }
            if message.flags.contains(MsgFlags::MSG_TRUNC) {
                return Err(invalid("a packet is longer than any of ours"));
            }
            (message.bytes, file)
        };
        match (&buffer[..len], file) {
            ([], _) => Ok(None),
            ([PACKET_VERSION, FORM_INLINE, body @ ..], _) => decode(body).map(Some),
            ([PACKET_VERSION, FORM_FILE], Some(file)) => decode(&read_whole(file)?).map(Some),
            ([version, ..], _) if *version != PACKET_VERSION => {
                Err(invalid(&format!("a packet has the version {version}, expected {PACKET_VERSION}")))
            }
            _ => Err(invalid("a packet has an unknown form")),
        }
    }
}

impl Socket {
    /// The process at the other end, by the number that it had when the connection was made; none where it has none here.
    pub(super) fn peer(&self) -> Option<i32> {
        getsockopt(self, PeerCredentials).ok().map(|peer| peer.pid()).filter(|pid| *pid > 0)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

fn decode<T: for<'b> minicbor::Decode<'b, ()>>(bytes: &[u8]) -> io::Result<T> {
    minicbor::decode(bytes).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

/// A memory file that nobody can change any more.
fn sealed_file(bytes: &[u8]) -> io::Result<File> {
    if bytes.len() as u64 > MESSAGE_LEN_MAX {
        return Err(invalid(&format!("a message of {} bytes is over the limit of {MESSAGE_LEN_MAX}", bytes.len())));
    }
    let mut file = File::from(memfd_create(c"narun-message", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?);
    file.write_all(bytes)?;
    let seals = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(file)
}

/// Reads a memory file; one that is not sealed is refused, since it could be any file, or change while it is read.
fn read_whole(mut file: File) -> io::Result<Vec<u8>> {
    let seals = fcntl(&file, FcntlArg::F_GET_SEALS).map(SealFlag::from_bits_retain);
    if !seals.is_ok_and(|seals| seals.contains(SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_GROW)) {
        return Err(invalid("a message came in a file that is not sealed"));
    }
    let mut bytes = Vec::new();
    file.rewind()?;
    file.take(MESSAGE_LEN_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MESSAGE_LEN_MAX {
        return Err(invalid("a message is over the limit"));
    }
    Ok(bytes)
}

/// Makes the listening socket in `data_dir`, mode 0600, in place of one that a dead keeper has left.
pub(super) fn listen(data_dir: &Path) -> io::Result<OwnedFd> {
    let path = data_dir.join(SOCKET_NAME);
    match fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let fd = seqpacket()?;
    let (_folder, address) = address(data_dir)?;
    socket::bind(fd.as_raw_fd(), &address)?;
    // Nobody can connect before `listen`, so there is no moment at which the socket stands open to others.
    fs::set_permissions(&path, Permissions::from_mode(0o600))?;
    socket::listen(&fd, Backlog::new(BACKLOG)?)?;
    Ok(fd)
}

/// Accepts one connection; none when nobody waits.
pub(super) fn accept(listener: &OwnedFd) -> io::Result<Option<Socket>> {
    match socket::accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK) {
        // SAFETY: the kernel has just made this descriptor for us; nobody else knows of it.
        Ok(fd) => Ok(Some(Socket(unsafe { OwnedFd::from_raw_fd(fd) }))),
        Err(Errno::EAGAIN | Errno::ECONNABORTED | Errno::EINTR) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Connects to the keeper of `data_dir`. `NotFound` or `ConnectionRefused` when there is none.
pub(super) fn connect(data_dir: &Path) -> io::Result<Socket> {
    let fd = seqpacket()?;
    let (_folder, address) = address(data_dir)?;
    socket::connect(fd.as_raw_fd(), &address)?;
    Ok(Socket(fd))
}

fn seqpacket() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    Ok(socket::socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?)
}

/// The socket's address by way of an open descriptor of its folder, which must live until the address was used: the address
/// of a unix socket holds 108 bytes, and a data directory's path may be longer than that.
fn address(data_dir: &Path) -> io::Result<(File, UnixAddr)> {
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    let folder = File::options().read(true).custom_flags(flags).open(data_dir)?;
    let path = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(OsStr::new(SOCKET_NAME));
    Ok((folder, UnixAddr::new(&path)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Socket, Socket) {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (a, b) = socket::socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap();
        (Socket(a), Socket(b))
    }

    #[test]
    fn short_and_long_messages_arrive_whole() {
        let (a, b) = pair();
        for len in [0, 10, PACKET_LEN_MAX - 20, PACKET_LEN_MAX, 3_000_000] {
            let text = "x".repeat(len);
            a.send(&text).unwrap();
            assert_eq!(b.receive::<String>().unwrap(), Some(text));
        }
        assert_eq!(b.receive::<String>().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(a);
        assert_eq!(b.receive::<String>().unwrap(), None);
    }

    #[test]
    fn a_message_over_the_limit_is_refused_by_the_sender() {
        let (a, b) = pair();
        let error = a.send(&"x".repeat(usize::try_from(MESSAGE_LEN_MAX).unwrap())).unwrap_err();
        assert!(error.to_string().contains("over the limit"), "{error}");
        assert_eq!(b.receive::<String>().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn garbage_is_an_error_and_not_a_message() {
        let (a, b) = pair();
        for packet in [&[9, 0, 1][..], &[1], &[1, 7], &[1, FORM_FILE], &[1, FORM_INLINE, 0xff]] {
            a.send_packet(packet, None).unwrap();
            assert_eq!(b.receive::<String>().unwrap_err().kind(), io::ErrorKind::InvalidData, "{packet:?}");
        }
    }

    #[test]
    fn a_file_that_is_not_sealed_is_refused() {
        let (a, b) = pair();
        let file = tempfile::tempfile().unwrap();
        a.send_packet(&[PACKET_VERSION, FORM_FILE], Some(file.as_raw_fd())).unwrap();
        assert_eq!(b.receive::<String>().unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_slow_reader_is_not_waited_for() {
        let (a, _b) = pair();
        let error = (0..100_000).find_map(|_| a.send(&"x".repeat(1000)).err()).expect("the buffer has an end");
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_data_directory_with_a_long_path_has_a_socket_too() {
        let base = tempfile::tempdir().unwrap();
        let deep = base.path().join("d".repeat(120)).join("e".repeat(120));
        fs::create_dir_all(&deep).unwrap();
        assert_eq!(connect(&deep).unwrap_err().kind(), io::ErrorKind::NotFound);
        let listener = listen(&deep).unwrap();
        assert_eq!(fs::metadata(deep.join(SOCKET_NAME)).unwrap().permissions().mode() & 0o777, 0o600);
        let near = connect(&deep).unwrap();
        let far = accept(&listener).unwrap().unwrap();
        near.send(&5u32).unwrap();
        assert_eq!(far.receive::<u32>().unwrap(), Some(5));
        drop(listener);
        assert_eq!(connect(&deep).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        listen(&deep).unwrap();
    }
}
