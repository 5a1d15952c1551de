//! A directory for `ipc` sockets that only its owner may enter: no other user of the machine can connect.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::random;

/// What sockets are called there; a colon and a number follow.
const NAME: &str = "s";

/// Bytes of a path that an address of a Unix socket takes (`sun_path` without its zero), less our name and number.
const DIRECTORY_BYTES_MAX: usize = 107 - "/s:65535".len();

/// Why there is no such directory.
#[derive(Debug, thiserror::Error)]
pub enum SocketDirectoryError {
    /// It could not be made or looked at.
    #[error("make the sockets' directory {}: set TMPDIR to one with room, or use --transport=tcp", path.display())]
    Create {
        /// The directory.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// Somebody else's, where earlier sockets were.
    #[error(
        "use the sockets' directory {}: it belongs to user {owner}, not to you; remove the connection files and start again",
        path.display()
    )]
    NotOurs {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
    },
}

/// The directory; a new one goes, with all that is in it, when this is dropped.
#[derive(Debug)]
pub struct SocketDirectory {
    path: PathBuf,
    is_kept: bool,
}

impl SocketDirectory {
    /// A new one below `temporary`, or below `/tmp` where that path is too long for a socket's.
    pub fn create(temporary: &Path) -> Result<SocketDirectory, SocketDirectoryError> {
        let name = format!("commworld-{}-{}", nix::unistd::geteuid(), &random::id()[..8]);
        let wanted = temporary.join(&name);
        let path = if wanted.as_os_str().len() <= DIRECTORY_BYTES_MAX && wanted.is_absolute() {
            wanted
        } else {
            Path::new("/tmp").join(name)
        };
        // Fails if it is there already, also as a link: nobody can have prepared it.
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => Ok(SocketDirectory { path, is_kept: false }),
            Err(source) => Err(SocketDirectoryError::Create { path, source }),
        }
    }

    /// The one of an `ipc` interface that is used again. It is made if it is gone; it stays when this is dropped.
    pub fn again(interface: &str) -> Result<SocketDirectory, SocketDirectoryError> {
        let socket = Path::new(interface.strip_prefix("ipc://").unwrap_or(interface));
        let parent = socket.parent().filter(|parent| !parent.as_os_str().is_empty());
        let path = parent.unwrap_or(Path::new(".")).to_owned();
        let failed = |source| SocketDirectoryError::Create { path: path.clone(), source };
        let owner = match std::fs::symlink_metadata(&path) {
            Ok(found) => found.uid(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                DirBuilder::new().mode(0o700).create(&path).map_err(failed)?;
                nix::unistd::geteuid().as_raw()
            }
            Err(error) => return Err(failed(error)),
        };
        // Root's are /tmp and the like, where one chose to put sockets.
        if owner != nix::unistd::geteuid().as_raw() && owner != 0 {
            return Err(SocketDirectoryError::NotOurs { path, owner });
        }
        Ok(SocketDirectory { path, is_kept: true })
    }

    /// Removes the directory of an interface whose controller is gone, if it is one that [`SocketDirectory::create`]
    /// made for this user.
    pub fn remove_leftover(interface: &str) {
        let Some(path) = interface.strip_prefix("ipc://").and_then(|socket| Path::new(socket).parent())
        else {
            return;
        };
        let uid = nix::unistd::geteuid();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let is_ours = std::fs::symlink_metadata(path)
            .is_ok_and(|found| found.is_dir() && found.uid() == uid.as_raw() && found.mode() & 0o077 == 0);
        if is_ours && name.starts_with(&format!("commworld-{uid}-")) {
            let _ = std::fs::remove_dir_all(path);
        }
    }

    /// Leaves the directory where it is for whoever goes on.
    pub fn keep(&mut self) {
        self.is_kept = true;
    }

    /// The interface of its sockets, to which a colon and a number are added: `ipc:///tmp/commworld-…/s`.
    pub fn interface(&self) -> String {
        format!("ipc://{}/{NAME}", self.path.display())
    }
}

/// The directory of an `ipc` interface that cannot be seen from this process: the controller is on another machine,
/// or gone. `None` if it is there, and for other interfaces.
pub fn missing(interface: &str) -> Option<&Path> {
    let directory = Path::new(interface.strip_prefix("ipc://")?).parent()?;
    // What may not be looked at is there; the connection will say more.
    let is_missing = matches!(directory.try_exists(), Ok(false)) && !directory.as_os_str().is_empty();
    is_missing.then_some(directory)
}

impl Drop for SocketDirectory {
    fn drop(&mut self) {
        if !self.is_kept {
            // libzmq removes the files when it gets to closing the sockets, which can be later.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_owner_may_enter_a_new_directory_and_it_goes_with_its_value() {
        let temporary = tempfile::tempdir().unwrap();
        let directory = SocketDirectory::create(temporary.path()).unwrap();
        let path = directory.path.clone();

        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o700);
        assert_eq!(directory.interface(), format!("ipc://{}/s", path.display()));
        drop(directory);
        assert!(!path.exists());
    }

    #[test]
    fn a_leftover_is_removed_and_nothing_else() {
        let temporary = tempfile::tempdir().unwrap();
        let mut left = SocketDirectory::create(temporary.path()).unwrap();
        left.keep();
        let (interface, path) = (left.interface(), left.path.clone());
        drop(left);
        std::fs::write(path.join("s:1"), "").unwrap();
        SocketDirectory::remove_leftover(&interface);
        assert!(!path.exists());

        let other = temporary.path().join("other");
        std::fs::create_dir(&other).unwrap();
        SocketDirectory::remove_leftover(&format!("ipc://{}/s", other.display()));
        assert!(other.exists());
    }

    #[test]
    fn a_directory_that_cannot_be_seen_is_named() {
        assert_eq!(missing("ipc:///nowhere/at/all/s"), Some(Path::new("/nowhere/at/all")));
        assert_eq!(missing("ipc:///tmp/s"), None);
        assert_eq!(missing("tcp://127.0.0.1"), None);
    }

    #[test]
    fn a_path_that_is_too_long_for_a_socket_gives_way_to_tmp() {
        let long = Path::new("/").join("x".repeat(100));
        let directory = SocketDirectory::create(&long).unwrap();
        assert!(directory.path.starts_with("/tmp"), "{}", directory.path.display());
    }

    #[test]
    fn a_directory_is_used_again_or_made_again_and_then_stays() {
        let temporary = tempfile::tempdir().unwrap();
        let interface = format!("ipc://{}/gone/s", temporary.path().display());
        for _ in 0..2 {
            let again = SocketDirectory::again(&interface).unwrap();
            assert_eq!(again.interface(), interface);
        }
        let made = std::fs::metadata(temporary.path().join("gone")).unwrap();
        assert_eq!(made.mode() & 0o7777, 0o700);
    }
}
