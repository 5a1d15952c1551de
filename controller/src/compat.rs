//! Options as stock launchers and configuration scripts write them (`--Class.trait=value`), turned into flags.
//!
//! Only spelling is dealt with here; what a flag means is said in `config.rs`.

/// Traits that have a flag of ours. Any class will do where the class does not matter to the original either.
const KNOWN: &[(&str, &str)] = &[
    ("DictDB.record_limit", "--db-records"),
    ("DictDB.size_limit", "--db-bytes"),
    ("SQLiteDB.filename", "--db-file"),
    ("SQLiteDB.location", "--db-dir"),
    ("HeartMonitor.period", "--ping"),
    ("HeartMonitor.max_heartmonitor_misses", "--heartbeat-misses"),
    ("IPController.ip", "--ip"),
    ("IPController.client_ip", "--client-ip"),
    ("IPController.engine_ip", "--engine-ip"),
    ("IPController.transport", "--transport"),
    ("IPController.client_transport", "--transport"),
    ("IPController.engine_transport", "--transport"),
    ("IPController.location", "--location"),
    ("IPController.ssh_server", "--ssh"),
    ("IPController.engine_ssh_server", "--enginessh"),
    ("IPController.reuse_files", "--reuse"),
    ("IPController.restore_engines", "--restore"),
    ("IPController.ports", "--ports"),
    ("IPController.client_ports", "--client-ports"),
    ("IPController.engine_ports", "--engine-ports"),
    ("IPController.cluster_id", "--cluster-id"),
    ("IPController.registration_timeout", "--registration-timeout"),
    ("IPController.enable_curve", "--enable-curve"),
    ("IPController.profile", "--profile"),
    ("IPController.ipython_dir", "--ipython-dir"),
    ("IPController.work_dir", "--work-dir"),
    ("IPController.log_level", "--log-level"),
    ("IPController.log_to_file", "--log-to-file"),
    ("IPController.log_url", "--log-url"),
    ("Application.log_level", "--log-level"),
    ("BaseParallelApplication.cluster_id", "--cluster-id"),
    ("BaseParallelApplication.log_to_file", "--log-to-file"),
    ("BaseParallelApplication.log_url", "--log-url"),
    ("BaseParallelApplication.work_dir", "--work-dir"),
    ("BaseIPythonApplication.profile", "--profile"),
    ("BaseIPythonApplication.ipython_dir", "--ipython-dir"),
    ("ProfileDir.location", "--profile-dir"),
    ("Session.keyfile", "--keyfile"),
    ("TaskScheduler.hwm", "--hwm"),
    ("TaskScheduler.scheme_name", "--scheme"),
];

/// What became of a command line.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Translated {
    /// The command line in our own flags.
    pub arguments: Vec<String>,
    /// Options of other programs' classes, or without meaning here.
    pub ignored: Vec<String>,
}

/// Turns `--Class.trait=value` and `--Class.trait value` into flags, or puts them aside.
pub fn translate(arguments: impl IntoIterator<Item = String>) -> Translated {
    let mut translated = Translated::default();
    let mut arguments = arguments.into_iter().peekable();
    while let Some(argument) = arguments.next() {
        let Some((name, value)) = trait_option(&argument) else {
            translated.arguments.push(argument);
            continue;
        };
        let value = value.map(str::to_owned).or_else(|| arguments.next_if(|next| !next.starts_with('-')));
        match KNOWN.iter().find(|(known, _)| *known == name) {
            Some((_, flag)) => translated.arguments.push(match value {
                Some(value) => format!("{flag}={value}"),
                None => (*flag).to_owned(),
            }),
            None => match (name, value.as_deref()) {
                ("IPController.db_class", Some(class)) => translated.arguments.push(database_flag(class)),
                _ => translated.ignored.push(argument),
            },
        }
    }
    translated
}

/// The name and value of an option of the form `--Class.trait[=value]`.
fn trait_option(argument: &str) -> Option<(&str, Option<&str>)> {
    let option = argument.strip_prefix("--")?;
    let (name, value) = match option.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (option, None),
    };
    let is_trait = name.starts_with(|first: char| first.is_ascii_uppercase()) && name.contains('.');
    is_trait.then_some((name, value))
}

/// `NoDB`, `ipyparallel.controller.sqlitedb.SQLiteDB`, …
fn database_flag(class: &str) -> String {
    format!("--{}", class.rsplit('.').next().unwrap_or(class).to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translated(arguments: &[&str]) -> (Vec<String>, Vec<String>) {
        let Translated { arguments, ignored } = translate(arguments.iter().map(|text| (*text).to_owned()));
        (arguments, ignored)
    }

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn known_traits_become_flags_in_either_spelling() {
        let (arguments, ignored) =
            translated(&["--HeartMonitor.period=250", "--IPController.ip", "*", "--debug"]);
        assert_eq!(arguments, texts(&["--ping=250", "--ip=*", "--debug"]));
        assert!(ignored.is_empty());
    }

    #[test]
    fn unknown_traits_are_put_aside_with_their_values() {
        let (arguments, ignored) =
            translated(&["--InteractiveShell.colors=nocolor", "--IPController.foo", "bar", "--profile=p"]);
        assert_eq!(arguments, texts(&["--profile=p"]));
        assert_eq!(ignored, texts(&["--InteractiveShell.colors=nocolor", "--IPController.foo"]));
    }

    #[test]
    fn a_database_class_becomes_its_flag() {
        for (class, flag) in [
            ("ipyparallel.controller.dictdb.DictDB", "--dictdb"),
            ("SQLiteDB", "--sqlitedb"),
            ("ipyparallel.controller.dictdb.NoDB", "--nodb"),
        ] {
            assert_eq!(translated(&[&format!("--IPController.db_class={class}")]).0, texts(&[flag]));
        }
    }
}
