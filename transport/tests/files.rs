//! Connection files: written, read, refused, waited for, removed.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::stat::Mode;
use serde_json::{Value, json};
use tempfile::TempDir;
use transport::connection_file::{self, ConnectionFileError};
use transport::profile::{Profile, ProfileOptions};

#[test]
fn what_was_written_is_read() {
    let place = TempDir::new().unwrap();
    let path = place.path().join("file.json");

    connection_file::write(&path, &content("k")).unwrap();

    assert_eq!(connection_file::read::<Value>(&path).unwrap(), content("k"));
}

#[test]
fn the_files_of_the_protocol_survive_the_disk() {
    let text = r#"{"ssh":"","interface":"tcp://127.0.0.1","registration":50029,"control":60741,"mux":42161,
        "task":37635,"iopub":44313,"hb_ping":43585,"hb_pong":40801,"broadcast":[53593,47297],
        "key":"521c7a5a-cef389d554380fe2641b9678","curve_serverkey":null,"location":"vm","pack":"json",
        "unpack":"json","signature_scheme":"hmac-sha256"}"#;
    let engine: protocol::connection_file::EngineFile = serde_json::from_str(text).unwrap();
    let place = TempDir::new().unwrap();
    let path = place.path().join("file.json");

    connection_file::write(&path, &engine).unwrap();

    assert_eq!(connection_file::read::<protocol::connection_file::EngineFile>(&path).unwrap(), engine);
    let expected: Value = serde_json::from_str(text).unwrap();
    assert_eq!(connection_file::read::<Value>(&path).unwrap(), expected);
}

#[test]
fn a_file_that_others_can_read_is_refused_with_the_command_to_run() {
    let place = TempDir::new().unwrap();
    let path = place.path().join("file.json");
    for exposed in [0o644, 0o640, 0o604, 0o602, 0o660] {
        connection_file::write(&path, &content("k")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(exposed)).unwrap();

        let error = connection_file::read::<Value>(&path).unwrap_err();

        assert!(matches!(error, ConnectionFileError::Exposed { mode, .. } if mode == exposed));
        let shown = error.to_string();
        assert!(shown.contains(&format!("chmod 600 '{}'", path.display())), "{shown}");
        assert!(shown.contains(&format!("mode {exposed:03o}")), "{shown}");
    }
}

#[test]
fn a_link_to_a_file_that_others_can_read_is_refused() {
    let place = TempDir::new().unwrap();
    let (path, link) = (place.path().join("file.json"), place.path().join("link.json"));
    fs::write(&path, "{}").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    std::os::unix::fs::symlink(&path, &link).unwrap();

    let error = connection_file::read::<Value>(&link).unwrap_err();
    assert!(matches!(error, ConnectionFileError::Exposed { .. }));
}

#[test]
fn what_is_no_connection_file_is_an_error_and_no_hang() {
    let place = TempDir::new().unwrap();
    let path = place.path().join("file.json");
    let read = |path: &Path| connection_file::read::<Value>(path).unwrap_err();
    assert!(matches!(read(&path), ConnectionFileError::Read { .. }));
    assert!(read(&path).to_string().ends_with("start the controller first, or name the file it wrote"));

    private(&path, b"{\"interface\":");
    assert!(matches!(read(&path), ConnectionFileError::Parse { .. }));
    private(&path, &vec![b' '; 2 << 20]);
    assert!(matches!(read(&path), ConnectionFileError::Unsuitable { what: "too large", .. }));
    assert!(matches!(read(place.path()), ConnectionFileError::Unsuitable { .. }));

    let fifo = place.path().join("fifo");
    nix::unistd::mkfifo(&fifo, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    assert!(matches!(read(&fifo), ConnectionFileError::Unsuitable { .. }));
}

#[test]
fn writing_into_an_absent_directory_is_an_error_that_names_the_file() {
    let place = TempDir::new().unwrap();
    let path = place.path().join("absent/file.json");

    let error = connection_file::write(&path, &content("k")).unwrap_err();

    assert!(error.to_string().contains(&path.display().to_string()));
}

#[test]
fn a_file_is_removed_only_by_who_wrote_it() {
    let place = TempDir::new().unwrap();
    let path = place.path().join("file.json");
    let first = connection_file::write(&path, &content("first")).unwrap();
    let second = connection_file::write(&path, &content("second")).unwrap();

    assert!(!first.remove_if_ours().unwrap());
    assert!(path.exists());
    assert!(second.remove_if_ours().unwrap());
    assert!(!path.exists());
    assert!(!second.remove_if_ours().unwrap());
}

#[test]
fn a_file_that_was_rewritten_in_place_is_left_alone() {
    let place = TempDir::new().unwrap();
    let path = place.path().join("file.json");
    let ours = connection_file::write(&path, &content("k")).unwrap();
    let mut longer = fs::read(&path).unwrap();
    longer.push(b' ');
    fs::write(&path, longer).unwrap();

    assert!(!ours.remove_if_ours().unwrap());
    assert!(path.exists());
}

#[test]
fn directories_that_others_may_enter_are_closed() {
    let place = TempDir::new().unwrap();
    let profile = profile(&place);
    fs::create_dir_all(profile.security_dir()).unwrap();
    fs::set_permissions(profile.security_dir(), fs::Permissions::from_mode(0o755)).unwrap();

    connection_file::create_directories(&profile).unwrap();

    assert_eq!(mode(&profile.security_dir()), 0o700);
    assert!(profile.log_dir().is_dir() && profile.startup_dir().is_dir());
}

#[test]
fn waiting_ends_when_the_file_is_there() {
    let place = TempDir::new().unwrap();
    let path = place.path().join("file.json");
    let written = path.clone();
    let mut looked = 0;

    // The second look is certain to find what the first one found missing.
    let read = connection_file::wait::<Value>(&path, Duration::from_secs(20), || {
        looked += 1;
        connection_file::write(&written, &content("k")).unwrap();
        false
    });

    assert_eq!((read.unwrap(), looked), (content("k"), 1));
}

#[test]
fn waiting_forgives_a_file_that_is_still_being_written() {
    let place = TempDir::new().unwrap();
    let path = place.path().join("file.json");
    fs::write(&path, "{\"inter").unwrap();
    let mut steps = 0;

    let read = connection_file::wait::<Value>(&path, Duration::from_secs(20), || {
        steps += 1;
        match steps {
            1 => fs::write(&path, serde_json::to_vec(&content("k")).unwrap()).unwrap(),
            _ => fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap(),
        }
        false
    });

    assert_eq!(read.unwrap(), content("k"));
}

#[test]
fn waiting_ends_at_the_deadline_or_when_cancelled() {
    let place = TempDir::new().unwrap();
    let path = place.path().join("file.json");
    let timeout = Duration::from_millis(60);
    let start = Instant::now();

    let error = connection_file::wait::<Value>(&path, timeout, || false).unwrap_err();
    assert!(matches!(error, ConnectionFileError::Absent { .. }));
    assert!(start.elapsed() >= timeout);

    let error = connection_file::wait::<Value>(&path, Duration::from_secs(20), || true).unwrap_err();
    assert!(matches!(error, ConnectionFileError::Cancelled { .. }));

    private(&path, b"{");
    let error = connection_file::wait::<Value>(&path, timeout, || false).unwrap_err();
    assert!(matches!(error, ConnectionFileError::Parse { .. }));
}

fn profile(place: &TempDir) -> Profile {
    let options = ProfileOptions { profile_dir: Some(place.path().join("profile_x")), ..Default::default() };
    Profile::locate(&options, |_| None).unwrap()
}

fn content(key: &str) -> Value {
    json!({"interface": "tcp://127.0.0.1", "key": key, "location": "here"})
}

fn private(path: &Path, content: &[u8]) {
    connection_file::write_private(path, content).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}
