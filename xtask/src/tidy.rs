//! Rules of ARCHITECTURE.md that text can show: who may name what, that files say what they are for, that the
//! protocol's document is as new as its messages.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// A word that only some folders may use.
struct Fence {
    /// What must not appear outside `allowed`.
    words: &'static [&'static str],
    /// Path prefixes where it may.
    allowed: &'static [&'static str],
    /// Path prefixes that the rule is about; empty: everywhere.
    within: &'static [&'static str],
    /// Why, as in ARCHITECTURE.md.
    why: &'static str,
}

const FENCES: &[Fence] = &[
    Fence {
        words: &["zmq::", "zmq_sys::"],
        allowed: &["transport/"],
        within: &[],
        why: "only transport names zmq",
    },
    Fence {
        words: &["mpi::ffi", "use mpi::", "::mpi::initialize", "mpi::topology"],
        allowed: &["engine/src/mpi", "engine/examples/", "engine/tests/", "module/", "mpi-examples/kernels/"],
        within: &[],
        why: "only engine/src/mpi and kernels name the mpi crate",
    },
    Fence {
        words: &[
            "std::fs",
            "std::net",
            "std::thread",
            "std::process",
            "SystemTime::now",
            "Instant::now",
            "std::env",
        ],
        allowed: &[],
        within: &["protocol/src/", "slurm-pbs/src/"],
        why: "protocol and slurm-pbs do no IO and read no clock",
    },
    Fence {
        words: &["std::fs", "std::net", "std::thread", "SystemTime::now", "Instant::now", "transport::"],
        allowed: &[],
        within: &[
            "controller/src/machine",
            "controller/src/records",
            "controller/src/hub",
            "controller/src/scheduler",
            "controller/src/tasks",
            "engine/src/machine",
            "client/src/machine",
        ],
        why: "machines are pure: events in, effects out, time is an argument",
    },
    Fence {
        words: &["protocol::value"],
        allowed: &[],
        within: &["controller/"],
        why: "the controller never decodes arguments or results",
    },
    Fence {
        words: &["todo!(", "unimplemented!(", "dbg!("],
        allowed: &["xtask/"],
        within: &[],
        why: "nothing is left for later in silence",
    },
];

const FINGERPRINT: &str = "<!-- messages: ";

/// Checks all rules; `bless` records that docs/PROTOCOL.md describes the messages as they are now.
pub(crate) fn run(root: &Path, bless: bool) -> Result<()> {
    let mut sources = Vec::new();
    collect(root, root, &mut sources)?;
    sources.sort();

    let mut complaints = Vec::new();
    let mut lengths = Vec::new();
    for path in &sources {
        let text = std::fs::read_to_string(root.join(path))
            .with_context(|| format!("failed to read {}", path.display()))?;
        let name = path.to_string_lossy().into_owned();
        if !text.trim_start().starts_with("//!") {
            complaints.push(format!("{name}: does not begin with //! and what it is for"));
        }
        for (number, line) in code_lines(&text) {
            for fence in FENCES.iter().filter(|fence| applies(fence, &name)) {
                if fence.words.iter().any(|word| line.contains(word)) {
                    complaints.push(format!("{name}:{number}: {}", fence.why));
                }
            }
        }
        lengths.push((text.lines().count(), name));
    }
    check_fingerprint(root, bless, &mut complaints)?;

    lengths.sort_by(|a, b| b.cmp(a));
    let longest: Vec<String> =
        lengths.iter().take(5).map(|(lines, name)| format!("{name} ({lines})")).collect();
    eprintln!("tidy: {} files; the longest: {}", lengths.len(), longest.join(", "));
    if complaints.is_empty() {
        return Ok(());
    }
    bail!("{} rules of ARCHITECTURE.md are broken:\n  {}", complaints.len(), complaints.join("\n  "))
}

fn applies(fence: &Fence, path: &str) -> bool {
    // Unit tests in files of their own may do what those at the end of a file may.
    let is_unit_test = path.contains("/src/") && (path.ends_with("/tests.rs") || path.contains("/tests/"));
    let inside = match fence.within {
        [] => true,
        within => !is_unit_test && within.iter().any(|prefix| path.starts_with(prefix)),
    };
    let exempt =
        fence.allowed.iter().any(|prefix| path.starts_with(prefix)) || path.starts_with("xtask/src/tidy");
    inside && !exempt
}

/// Lines with their numbers, without comments, up to the file's unit tests (which may use what they like).
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .take_while(|(_, line)| line.trim() != "#[cfg(test)]")
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .map(|(index, line)| (index + 1, line))
}

/// All .rs files below `folder`, without build products.
fn collect(root: &Path, folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| format!("failed to list {}", folder.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            if !name.starts_with('.')
                && !name.starts_with("target")
                && name != "artifacts"
                && name != "corpus"
                && name != "found"
            {
                collect(root, &path, found)?;
            }
        } else if name.ends_with(".rs") {
            let relative = path.strip_prefix(root).expect("it was found below the root");
            found.push(relative.to_owned());
        }
    }
    Ok(())
}

/// docs/PROTOCOL.md carries a fingerprint of the files that define messages, so that a message cannot change
/// without somebody looking at the document.
fn check_fingerprint(root: &Path, bless: bool, complaints: &mut Vec<String>) -> Result<()> {
    let document = root.join("docs/PROTOCOL.md");
    let text = std::fs::read_to_string(&document).context("failed to read docs/PROTOCOL.md")?;
    let expected = format!("{FINGERPRINT}{:016x} -->", fingerprint(root)?);
    if text.contains(&expected) {
        return Ok(());
    }
    if !bless {
        complaints.push(
            "docs/PROTOCOL.md: the messages changed since it was last compared with them; read it, then run \
             `cargo xtask tidy --bless`"
                .to_owned(),
        );
        return Ok(());
    }
    let mut updated = String::new();
    for line in text.lines().filter(|line| !line.starts_with(FINGERPRINT)) {
        writeln!(updated, "{line}").expect("writing to a String cannot fail");
    }
    writeln!(updated, "{expected}").expect("writing to a String cannot fail");
    std::fs::write(&document, updated).context("failed to write docs/PROTOCOL.md")
}

/// FNV-1a over the message definitions.
fn fingerprint(root: &Path) -> Result<u64> {
    let mut files = Vec::new();
    collect(root, &root.join("protocol/src/message"), &mut files)?;
    files.extend(
        ["message.rs", "extension.rs", "header.rs", "error.rs"]
            .map(|name| Path::new("protocol/src").join(name)),
    );
    files.sort();
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for file in files {
        for byte in
            std::fs::read(root.join(&file)).with_context(|| format!("failed to read {}", file.display()))?
        {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    Ok(hash)
}
