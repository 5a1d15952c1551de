//! Which MPI an executable is linked with, read from its ELF dynamic section: running it, or `ldd` on it, to
//! find out would start MPI.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use slurm_pbs::Flavor;

/// Larger tables than this are not what a linker writes.
const TABLE_BYTES_MAX: u64 = 16 * 1024 * 1024;

const SEGMENT_LOAD: u32 = 1;
const SEGMENT_DYNAMIC: u32 = 2;
const TAG_NEEDED: u64 = 1;
const TAG_STRING_TABLE: u64 = 5;
const TAG_STRING_TABLE_SIZE: u64 = 10;

/// The MPI that `program` needs; none if it needs none, or is a script, or of another kind.
pub(super) fn find(program: &Path) -> Option<Flavor> {
    let file = File::open(program).ok()?;
    needed_libraries(|offset, length| {
        if length > TABLE_BYTES_MAX {
            return None;
        }
        let mut bytes = vec![0; usize::try_from(length).ok()?];
        file.read_exact_at(&mut bytes, offset).ok()?;
        Some(bytes)
    })?
    .iter()
    .find_map(|name| Flavor::from_library_name(name))
}

struct Segment {
    kind: u32,
    offset: u64,
    address: u64,
    length: u64,
}

/// The names under `DT_NEEDED` of a 64-bit little-endian ELF file, which all our platforms use. `read` gives
/// bytes of the file at an offset.
fn needed_libraries(read: impl Fn(u64, u64) -> Option<Vec<u8>>) -> Option<Vec<String>> {
    let header = read(0, 64)?;
    if header.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let (table, size, count) = (u64_at(&header, 32)?, u16_at(&header, 54)?, u16_at(&header, 56)?);
    if size < 56 {
        return None;
    }
    let entries = read(table, u64::from(size) * u64::from(count))?;
    let segments: Vec<Segment> = entries.chunks_exact(usize::from(size)).filter_map(segment).collect();

    let dynamic = segments.iter().find(|segment| segment.kind == SEGMENT_DYNAMIC)?;
    let dynamic = read(dynamic.offset, dynamic.length)?;
    let pairs: Vec<(u64, u64)> =
        dynamic.chunks_exact(16).filter_map(|pair| Some((u64_at(pair, 0)?, u64_at(pair, 8)?))).collect();
    let value = |wanted| pairs.iter().find(|(tag, _)| *tag == wanted).map(|(_, value)| *value);

    let address = value(TAG_STRING_TABLE)?;
    let loaded = segments.iter().filter(|segment| segment.kind == SEGMENT_LOAD);
    let holder = loaded.into_iter().find(|segment| {
        address.checked_sub(segment.address).is_some_and(|distance| distance < segment.length)
    })?;
    let strings = read(holder.offset.checked_add(address - holder.address)?, value(TAG_STRING_TABLE_SIZE)?)?;

    let needed = pairs.iter().filter(|(tag, _)| *tag == TAG_NEEDED);
    Some(needed.filter_map(|(_, at)| text_at(&strings, *at)).collect())
}

fn segment(entry: &[u8]) -> Option<Segment> {
    Some(Segment {
        kind: u32::from_le_bytes(entry.get(..4)?.try_into().ok()?),
        offset: u64_at(entry, 8)?,
        address: u64_at(entry, 16)?,
        length: u64_at(entry, 32)?,
    })
}

fn text_at(strings: &[u8], at: u64) -> Option<String> {
    let rest = strings.get(usize::try_from(at).ok()?..)?;
    let end = rest.iter().position(|&byte| byte == 0)?;
    Some(String::from_utf8_lossy(&rest[..end]).into_owned())
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_bytes(bytes: &[u8]) -> Option<Vec<String>> {
        needed_libraries(|offset, length| {
            let from = usize::try_from(offset).ok()?;
            let to = from.checked_add(usize::try_from(length).ok()?)?;
            bytes.get(from..to).map(<[u8]>::to_vec)
        })
    }

    #[test]
    fn the_libraries_of_this_very_program_are_found() {
        let bytes = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let found = of_bytes(&bytes).unwrap();
        assert!(found.iter().any(|name| name.starts_with("libc.so")), "found {found:?}");
        assert_eq!(find(&std::env::current_exe().unwrap()), None, "tests of cluster need no MPI");
    }

    #[test]
    fn scripts_and_broken_files_need_no_mpi_and_do_no_harm() {
        assert_eq!(of_bytes(b"#!/bin/sh\n"), None);
        let whole = std::fs::read("/bin/sh").unwrap();
        for length in (0..1024.min(whole.len())).chain([whole.len() / 2]) {
            let _ = of_bytes(&whole[..length]);
        }
        let mut header = whole[..64].to_vec();
        for at in 0..64 {
            let before = std::mem::replace(&mut header[at], 0xff);
            let _ = of_bytes(&header);
            header[at] = before;
        }
    }
}
