//! The files that tell clients and engines where the controller is and what its key is: never readable by others.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use protocol::limits::CONNECTION_FILE_BYTES_MAX;
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use crate::profile::Profile;
use crate::random;

/// How often [`wait`] looks. A shared file system has no event to wait for instead.
const WAIT_INTERVAL: Duration = Duration::from_millis(50);

/// How long [`wait`] forgives a file that is there but cannot be used: stock controllers write in place and
/// restrict the mode afterwards.
const WAIT_UNUSABLE_MAX: Duration = Duration::from_secs(2);

/// Why a connection file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionFileError {
    /// Not readable.
    #[error("read connection file {}: {}", path.display(), read_hint(source))]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// Its key is no secret any more.
    #[error(
        "trust connection file {}: others can read it (mode {mode:03o}) and the key in it; \
         run: chmod 600 '{}', and restart the controller if others use this machine",
        path.display(), path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Not a regular file, or far too large for one.
    #[error("use {} as connection file: it is {what}; give the file that the controller wrote", path.display())]
    Unsuitable {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// Not the expected JSON.
    #[error("understand connection file {}: give the file that the controller wrote, or restart it", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where it differs.
        #[source]
        source: serde_json::Error,
    },
    /// Could not be written.
    #[error("write connection file {}: check that its directory exists, is yours, and has room", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The directories could not be made.
    #[error("create directory {}: give one that you may write to with --profile-dir", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// Did not appear.
    #[error(
        "find connection file {} within {:.0} s: check that the controller runs and writes to the same directory",
        path.display(), waited.as_secs_f64()
    )]
    Absent {
        /// The file.
        path: PathBuf,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The caller gave up first.
    #[error("wait for connection file {}: cancelled", path.display())]
    Cancelled {
        /// The file.
        path: PathBuf,
    },
}

fn read_hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::NotFound => "start the controller first, or name the file it wrote",
        io::ErrorKind::PermissionDenied => "only the user who started the controller may read it",
        _ => "check the file system",
    }
}

/// A file that this process wrote and may remove again.
pub struct WrittenFile {
    path: PathBuf,
    content: Zeroizing<Vec<u8>>,
}

impl WrittenFile {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the file if it still is what was written; returns whether it was removed.
    ///
    /// Another controller of the same profile may have replaced it since, or another program rewritten it.
    pub fn remove_if_ours(&self) -> io::Result<bool> {
        let mut found = Zeroizing::new(Vec::new());
        let opened = match open_for_reading(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            opened => opened?,
        };
        opened.take(self.content.len() as u64 + 1).read_to_end(&mut found)?;
        if *found != *self.content {
            return Ok(false);
        }
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            removed => removed.map(|()| true),
        }
    }
}

impl std::fmt::Debug for WrittenFile {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("WrittenFile").field(&self.path).finish()
    }
}

/// Makes the profile's directories: `security/` and `pid/` for the owner only, the others as umask says.
///
/// An existing `security/` or `pid/` that others may enter is closed to them.
pub fn create_directories(profile: &Profile) -> Result<(), ConnectionFileError> {
    for (path, mode) in [
        (profile.dir().to_owned(), 0o777),
        (profile.log_dir(), 0o777),
        (profile.startup_dir(), 0o777),
        (profile.security_dir(), 0o700),
        (profile.pid_dir(), 0o700),
    ] {
        create_directory(&path, mode)
            .map_err(|source| ConnectionFileError::Directory { path: path.clone(), source })?;
    }
    Ok(())
}

fn create_directory(path: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(mode).create(path)?;
    let private = mode & 0o077 == 0;
    if private && std::fs::metadata(path)?.mode() & 0o077 != 0 {
        std::fs::set_permissions(path, Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// Writes `content` as JSON: to a new file of mode 0600 beside `path`, which then takes its place in one step.
///
/// At no time can others read it, and nobody reads half of it. It is not forced to disk: after a crash of the
/// machine the controller is gone too.
pub fn write<T: Serialize>(path: &Path, content: &T) -> Result<WrittenFile, ConnectionFileError> {
    let failed = |source| ConnectionFileError::Write { path: path.to_owned(), source };
    let mut json = Zeroizing::new(serde_json::to_vec_pretty(content).map_err(|error| failed(error.into()))?);
    json.push(b'\n');
    write_private(path, &json).map_err(failed)?;
    Ok(WrittenFile { path: path.to_owned(), content: json })
}

/// Puts a file of mode 0600 in the place of `path` in one step, whatever the umask.
pub fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut temporary_name = std::ffi::OsString::from(".");
    temporary_name.push(name);
    temporary_name.push(format!(".{}.tmp", random::id()));
    let temporary = path.with_file_name(temporary_name);
    let written = create_private(&temporary, content).and_then(|()| std::fs::rename(&temporary, path));
    if written.is_err() {
        // The first error is the one to tell; what is left behind is unreadable to others and harmless.
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

fn create_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    // The umask can only have taken bits away; a strange one would lock the owner out.
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(content)
}

/// Reads a connection file; refuses one that others can read.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T, ConnectionFileError> {
    let json = read_private(path)?;
    serde_json::from_slice(&json)
        .map_err(|source| ConnectionFileError::Parse { path: path.to_owned(), source })
}

/// Reads the bytes of a file that only its owner may read.
pub fn read_private(path: &Path) -> Result<Zeroizing<Vec<u8>>, ConnectionFileError> {
    let failed = |source| ConnectionFileError::Read { path: path.to_owned(), source };
    let unsuitable = |what| ConnectionFileError::Unsuitable { path: path.to_owned(), what };
    let file = open_for_reading(path).map_err(failed)?;
    // Of the open file, not of the path: that could be exchanged in between.
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(unsuitable("not a regular file"));
    }
    let mode = metadata.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(ConnectionFileError::Exposed { path: path.to_owned(), mode });
    }
    let mut content = Zeroizing::new(Vec::new());
    file.take(CONNECTION_FILE_BYTES_MAX + 1).read_to_end(&mut content).map_err(failed)?;
    if content.len() as u64 > CONNECTION_FILE_BYTES_MAX {
        return Err(unsuitable("too large"));
    }
    Ok(content)
}

/// Opens without waiting for a writer should it be a FIFO.
fn open_for_reading(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)
}

/// Waits until the file can be read, for at most `timeout`, or until `cancelled` says so.
///
/// `cancelled` is asked each time before sleeping: let it look whether the controller still runs.
pub fn wait<T: DeserializeOwned>(
    path: &Path,
    timeout: Duration,
    mut cancelled: impl FnMut() -> bool,
) -> Result<T, ConnectionFileError> {
    let start = Instant::now();
    let mut unusable_since = None;
    loop {
        match read(path) {
            Ok(content) => return Ok(content),
            Err(ConnectionFileError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                unusable_since = None;
                if start.elapsed() >= timeout {
                    return Err(ConnectionFileError::Absent {
                        path: path.to_owned(),
                        waited: start.elapsed(),
                    });
                }
            }
            Err(error) => {
                let since: Instant = *unusable_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= WAIT_UNUSABLE_MAX || start.elapsed() >= timeout {
                    return Err(error);
                }
            }
        }
        if cancelled() {
            return Err(ConnectionFileError::Cancelled { path: path.to_owned() });
        }
        thread::sleep(WAIT_INTERVAL.min(timeout.saturating_sub(start.elapsed())));
    }
}
