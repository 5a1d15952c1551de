//! What flags mean.

use std::ffi::OsString;

use super::*;
use crate::compat;

fn parse(arguments: &[&str]) -> Result<Flags, clap::Error> {
    let typed = std::iter::once("controller").chain(arguments.iter().copied()).map(str::to_owned);
    Flags::try_parse_from(compat::translate(typed).arguments)
}

fn resolve_in(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let environment: Vec<(String, OsString)> = [("HOME", "/home/me")]
        .iter()
        .chain(environment)
        .map(|(name, value)| ((*name).to_owned(), OsString::from(value)))
        .collect();
    let find =
        |wanted: &str| environment.iter().rev().find(|(name, _)| name == wanted).map(|(_, v)| v.clone());
    parse(arguments).expect("they parse").resolve(find, "here".to_owned())
}

fn resolve(arguments: &[&str]) -> Config {
    resolve_in(arguments, &[]).expect("they are fine")
}

#[test]
fn without_flags_it_listens_on_loopback_at_random_ports_with_a_new_key() {
    let (one, other) = (resolve(&[]), resolve(&[]));
    assert_eq!(one.client_interface, "tcp://127.0.0.1");
    assert_eq!(one.engine_interface, "tcp://127.0.0.1");
    assert_eq!(one.ports.common.len() + one.ports.engine.len() + one.ports.client.len(), 0);
    assert!(!one.key.is_empty() && one.key != other.key);
    assert_eq!(one.location, "here");
    assert_eq!(one.settings.heartbeat_period, Duration::from_secs(3));
    assert_eq!(one.profile.dir(), std::path::Path::new("/home/me/.ipython/profile_default"));
}

#[test]
fn the_flags_of_the_stock_test_suite_are_understood() {
    let flags = ["--profile=iptest", "--log-level=10", "--ping=250", "--dictdb", "--ip=127.0.0.1"];
    assert_eq!(parse(&flags).expect("they parse").level(), LevelFilter::DEBUG);
    assert_eq!(resolve(&flags).settings.heartbeat_period, Duration::from_millis(250));
}

#[test]
fn values_may_follow_an_equals_sign_or_a_space_and_the_last_one_counts() {
    let config = resolve(&["--location", "a", "--location=b", "--cluster-id", "c"]);
    assert_eq!((config.location.as_str(), config.profile.cluster_id()), ("b", "c"));
}

#[test]
fn ports_are_lists_of_numbers_and_ranges() {
    let config = resolve(&["--ports=10101-10103,10200", "--port", "9000"]);
    assert_eq!(config.ports.common, [10101, 10102, 10103, 10200]);
    assert_eq!(config.ports.engine, [9000]);
    for bad in ["1-", "x", "5-3", "70000", "0"] {
        let error = resolve_in(&["--ports", bad], &[]).expect_err("not ports");
        assert!(matches!(error, ConfigError::Ports { .. }), "{bad}");
    }
}

#[test]
fn the_key_comes_from_the_environment_or_is_left_out() {
    let given = resolve_in(&[], &[("IPP_SESSION_KEY", "k")]).expect("fine");
    assert_eq!(given.key.reveal(), "k");
    let none = resolve_in(&["--no-secure"], &[("IPP_SESSION_KEY", "k")]).expect("fine");
    assert!(none.key.is_empty());
    assert!(!resolve(&["--no-secure", "--secure"]).key.is_empty());
}

#[test]
fn curve_replaces_signatures_unless_a_key_is_given() {
    let config = resolve_in(&[], &[("IPP_ENABLE_CURVE", "1")]).expect("fine");
    assert!(config.curve.is_some() && config.key.is_empty());
}

#[test]
fn connections_that_leave_the_machine_are_encrypted_and_signed_unless_the_user_says_no() {
    for ip in ["*", "0.0.0.0", "10.1.2.3", "node7"] {
        let config = resolve(&["--ip", ip]);
        assert!(config.curve.is_some() && config.curve_is_new && !config.key.is_empty(), "{ip}");
        assert!(resolve(&["--ip", ip, "--no-curve"]).curve.is_none(), "{ip}");
        assert!(resolve(&["--ip", ip, "--enable-curve=false"]).curve.is_none(), "{ip}");
        let told = resolve_in(&["--ip", ip], &[("IPP_ENABLE_CURVE", "0")]).expect("fine");
        assert!(told.curve.is_none(), "{ip}");
    }
    assert!(resolve(&["--engine-ip=10.1.2.3"]).curve.is_some());
    for ip in ["127.0.0.1", "localhost", "127.8.9.10"] {
        assert!(resolve(&["--ip", ip]).curve.is_none(), "{ip}");
    }
    assert!(resolve(&["--transport=ipc", "--ip=/run/x"]).curve.is_none());
}

#[test]
fn what_is_not_supported_says_what_to_do() {
    for flag in ["--mongodb", "--scheme=pure"] {
        let error = resolve_in(&[flag], &[]).expect_err("not supported").to_string();
        assert!(error.starts_with(&format!("use {flag}")) && error.contains(';'), "{error}");
    }
}

#[test]
fn to_restore_is_to_use_the_files_again() {
    let config = resolve(&["--restore"]);
    assert!(config.reuse && config.restore && config.settings.restorable);
    let config = resolve(&["--reuse"]);
    assert!(config.reuse && !config.restore && !config.settings.restorable);
}

#[test]
fn records_are_kept_in_memory_unless_the_last_flag_says_otherwise() {
    let file = |path: &str, bounds| Keeping::File { path: path.into(), spare: None, bounds };
    let profile = "/home/me/.ipython/profile_default";
    for (flags, expected) in [
        (vec![], Keeping::Memory(Bounds::MEMORY)),
        (vec!["--sqlitedb", "--dictdb"], Keeping::Memory(Bounds::MEMORY)),
        (vec!["--mongodb", "--nodb"], Keeping::Nothing),
        (vec!["--nodb", "--sqlitedb"], file(&format!("{profile}/tasks.db"), Bounds::FILE)),
        (vec!["--sqlitedb", "--db-file=x/y.db"], file(&format!("{profile}/x/y.db"), Bounds::FILE)),
        (
            vec!["--sqlitedb", "--cluster-id=7"],
            Keeping::File {
                path: format!("{profile}/tasks.db").into(),
                spare: Some(format!("{profile}/tasks-7.db").into()),
                bounds: Bounds::FILE,
            },
        ),
        (vec!["--sqlitedb", "--cluster-id=7", "--db-file=/a/y.db"], file("/a/y.db", Bounds::FILE)),
        (
            vec![
                "--IPController.db_class=SQLiteDB",
                "--SQLiteDB.location=/a",
                "--SQLiteDB.filename=b",
                "--db-bytes=2G",
            ],
            file("/a/b", Bounds { bytes: 2 << 30, ..Bounds::FILE }),
        ),
        (
            vec!["--DictDB.record_limit=7", "--DictDB.size_limit=1000"],
            Keeping::Memory(Bounds { records: 7, bytes: 1000 }),
        ),
    ] {
        assert_eq!(resolve(&flags).records, expected, "{flags:?}");
    }
}

#[test]
fn sizes_are_bytes_or_have_a_unit() {
    for (text, bytes) in
        [("0", 0), ("1000", 1000), ("64M", 64 << 20), ("64 MiB", 64 << 20), ("4gb", 4 << 30), ("1k", 1024)]
    {
        assert_eq!(parse_size(text), Ok(bytes), "{text}");
    }
    for text in ["", "M", "-1", "1.5G", "5 apples", "99999999999T", "1mm"] {
        assert!(parse_size(text).is_err(), "{text}");
    }
}

#[test]
fn levels_are_pythons_numbers_or_names() {
    for (text, level) in [
        ("5", LevelFilter::TRACE),
        ("10", LevelFilter::DEBUG),
        ("INFO", LevelFilter::INFO),
        ("30", LevelFilter::WARN),
        ("CRITICAL", LevelFilter::ERROR),
    ] {
        assert_eq!(parse(&["--log-level", text]).expect("a level").level(), level);
    }
    assert!(parse(&["--log-level", "loud"]).is_err());
    assert_eq!(parse(&["--quiet"]).expect("fine").level(), LevelFilter::ERROR);
}

#[test]
fn the_command_line_is_consistent() {
    use clap::CommandFactory;
    Flags::command().debug_assert();
}
