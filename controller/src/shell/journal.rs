//! The journal's file: appended to before what it tells of is done, read by the next controller, written anew when it
//! has grown too long.
//!
//! It outlives the process, however that ends. It is not forced to the disk at every step, so that a machine that
//! loses power may lose its last seconds.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::journal::{decode, encode};
use crate::machine::{Controller, Effect};
use crate::records::Change;

/// A journal is written anew when it is longer than this, and than twice what it was when it was last written anew.
const LENGTH_MAX: u64 = 64 * 1024 * 1024;

/// What a journal begins with: its form, and by which bytes its tasks' routes begin.
const FORM: &[u8; 8] = b"cwjrnl1\n";

/// Bytes before the first entry.
const HEAD_BYTES: usize = 16;

/// Why there is no journal.
#[derive(Debug, thiserror::Error)]
#[error("{act} the journal {}: check that the directory exists, is yours, and has room", path.display())]
pub struct JournalError {
    act: &'static str,
    path: PathBuf,
    #[source]
    source: std::io::Error,
}

/// What an earlier controller left.
#[derive(Debug)]
pub struct Left {
    /// By which bytes the routes of its tasks begin.
    pub epoch: [u8; 8],
    /// What happened in its life.
    pub changes: Vec<Change>,
}

/// An open journal.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    epoch: [u8; 8],
    file: File,
    length: u64,
    length_max: u64,
    pending: Vec<u8>,
}

/// Reads what an earlier controller left; none if there is no journal.
pub fn read(path: &Path) -> Result<Option<Left>, JournalError> {
    let failed = |source| JournalError { act: "read", path: path.to_owned(), source };
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = vec![];
    file.read_to_end(&mut bytes).map_err(failed)?;
    let mut bytes = Bytes::from(bytes);
    if bytes.len() < HEAD_BYTES || !bytes.starts_with(FORM) {
        tracing::warn!(path = %path.display(), "not a journal of this version; it is replaced");
        return Ok(None);
    }
    let epoch = bytes[FORM.len()..HEAD_BYTES].try_into().expect("eight bytes");
    let _ = bytes.split_to(HEAD_BYTES);
    let mut changes = vec![];
    loop {
        match decode(&mut bytes) {
            Ok(Some(change)) => changes.push(change),
            Ok(None) => break,
            Err(error) => {
                tracing::info!(entries = changes.len(), left_bytes = bytes.len(), %error, "the journal ends early");
                break;
            }
        }
    }
    Ok(Some(Left { epoch, changes }))
}

impl Journal {
    /// A new journal in place of whatever is there, which begins with what is so now.
    /// What `effects` tell of is not so yet for the machine's snapshot: it follows.
    pub fn create(
        path: &Path,
        epoch: [u8; 8],
        controller: &Controller,
        effects: &[Effect],
    ) -> Result<Journal, JournalError> {
        let failed = |act| move |source| JournalError { act, path: path.to_owned(), source };
        let new = path.with_extension("new");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)
            .map_err(failed("create"))?;
        let mut bytes = [&FORM[..], &epoch].concat();
        controller.snapshot().iter().for_each(|change| encode(change, &mut bytes));
        encode_all(effects, &mut bytes);
        file.write_all(&bytes).map_err(failed("write"))?;
        std::fs::rename(&new, path).map_err(failed("replace"))?;
        let length = bytes.len() as u64;
        let length_max = LENGTH_MAX.max(length * 2);
        Ok(Journal { path: path.to_owned(), epoch, file, length, length_max, pending: vec![] })
    }

    /// Writes down what these effects tell of. They may be performed when this has returned.
    pub fn write(&mut self, effects: &[Effect]) -> Result<(), JournalError> {
        encode_all(effects, &mut self.pending);
        if self.pending.is_empty() {
            return Ok(());
        }
        let written = self.file.write_all(&self.pending);
        self.length += self.pending.len() as u64;
        self.pending.clear();
        self.pending.shrink_to(1024 * 1024);
        written.map_err(|source| JournalError { act: "write", path: self.path.clone(), source })
    }

    /// Writes the journal anew if it has grown too long.
    pub fn shorten(self, controller: &Controller) -> Result<Journal, JournalError> {
        if self.length <= self.length_max {
            return Ok(self);
        }
        let anew = Journal::create(&self.path, self.epoch, controller, &[])?;
        tracing::debug!(before = self.length, after = anew.length, "journal written anew");
        Ok(anew)
    }

    /// There is nothing to go on with: the cluster was ended on purpose.
    pub fn remove(self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "journal not removed");
        }
    }
}

fn encode_all(effects: &[Effect], out: &mut Vec<u8>) {
    for effect in effects {
        if let Effect::Remember(change) = effect {
            encode(change, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::Instant;

    use protocol::id::EngineId;

    use super::*;
    use crate::machine::Settings;

    fn left(number: u32) -> Change {
        Change::Left { id: EngineId(number), engine: "e0".into() }
    }

    #[test]
    fn what_is_written_is_read_by_the_next_and_by_nobody_else() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("tasks.journal");
        assert!(read(&path).expect("no file is no error").is_none());
        let controller = Controller::new(Instant::now(), Settings::default());
        let mut journal = Journal::create(&path, *b"12345678", &controller, &[]).expect("created");
        journal
            .write(&[Effect::Remember(left(3)), Effect::Ping, Effect::Remember(left(4))])
            .expect("written");
        let found = read(&path).expect("readable").expect("there");
        assert_eq!((found.epoch, found.changes), (*b"12345678", vec![left(3), left(4)]));
        let mode = std::fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        journal.remove();
        assert!(read(&path).expect("no file is no error").is_none());
    }

    #[test]
    fn a_long_journal_is_written_anew_with_what_still_matters() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("tasks.journal");
        let controller = Controller::new(Instant::now(), Settings::default());
        let mut journal = Journal::create(&path, [0; 8], &controller, &[]).expect("created");
        journal.length_max = 1000;
        let many: Vec<Effect> = (0..100).map(|number| Effect::Remember(left(number))).collect();
        journal.write(&many).expect("written");
        let journal = journal.shorten(&controller).expect("shortened");
        assert_eq!(journal.length, HEAD_BYTES as u64);
        assert_eq!(read(&path).expect("readable").expect("there").changes, []);
    }
}
