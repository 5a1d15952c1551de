//! What a process that holds a key does first.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// If it is set, core dumps are left as they are.
pub const CORE_DUMPS_VARIABLE: &str = "COMMWORLD_CORE_DUMPS";

/// Why nobody should run a cluster as root, for whoever does.
pub const ROOT_WARNING: &str =
    "runs as root: whoever has the key of this cluster is root on this machine; run it as an ordinary user";

/// Core dumps hold the key, and may be read by others or be collected: none is written, unless the variable
/// [`CORE_DUMPS_VARIABLE`] is set. User code and children can raise the limit again.
pub fn keep_key_out_of_core_dumps() {
    if std::env::var_os(CORE_DUMPS_VARIABLE).is_some_and(|value| !value.is_empty()) {
        return;
    }
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_CORE) {
        let _ = setrlimit(Resource::RLIMIT_CORE, 0, most);
    }
}

/// Whether this process is root's.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}
