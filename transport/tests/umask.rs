//! Connection files are for their owner only, from the first byte on and under any umask.
//!
//! The umask belongs to the process: this is a test program of its own with one test.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;

use nix::sys::stat::{Mode, umask};
use serde_json::{Value, json};
use tempfile::TempDir;
use transport::connection_file;
use transport::profile::{Profile, ProfileOptions};

#[test]
fn files_and_directories_have_their_mode_under_any_umask() {
    for mask in [0o000, 0o022, 0o077, 0o777] {
        let place = TempDir::new().unwrap();
        let profile = profile(&place);
        let before = umask(Mode::from_bits_truncate(if mask == 0o777 { 0o077 } else { mask }));
        let created = connection_file::create_directories(&profile);
        umask(Mode::from_bits_truncate(mask));
        let written = connection_file::write(&profile.client_file(), &content("k"));
        umask(before);
        created.unwrap();
        written.unwrap();

        assert_eq!(mode(&profile.client_file()), 0o600, "umask {mask:03o}");
        assert_eq!(mode(&profile.security_dir()), 0o700, "umask {mask:03o}");
        assert_eq!(mode(&profile.pid_dir()), 0o700, "umask {mask:03o}");
        assert_eq!(names(&profile.security_dir()), ["ipcontroller-client.json"]);
    }
    the_file_is_private_at_every_moment();
}

/// Looks at the directory as quickly as it can while files are written with a careless umask.
fn the_file_is_private_at_every_moment() {
    let place = TempDir::new().unwrap();
    let path = place.path().join("file.json");
    let before = umask(Mode::empty());
    let writer = {
        let path = path.clone();
        thread::spawn(move || {
            for round in 0..300 {
                connection_file::write(&path, &content(&format!("{round}"))).unwrap();
            }
        })
    };
    while !writer.is_finished() {
        for entry in fs::read_dir(place.path()).unwrap() {
            if let Ok(metadata) = entry.and_then(|entry| entry.metadata()) {
                assert_eq!(metadata.mode() & 0o777, 0o600);
            }
        }
        if let Ok(read) = connection_file::read::<Value>(&path) {
            assert_eq!(read["location"], "here", "whole, whenever it is read");
        }
    }
    umask(before);
    writer.join().unwrap();
}

fn profile(place: &TempDir) -> Profile {
    let options = ProfileOptions { profile_dir: Some(place.path().join("profile_x")), ..Default::default() };
    Profile::locate(&options, |_| None).unwrap()
}

fn content(key: &str) -> Value {
    json!({"interface": "tcp://127.0.0.1", "key": key, "location": "here"})
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

fn names(directory: &Path) -> Vec<String> {
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}
