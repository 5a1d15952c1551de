//! NumPy's `.npy` files: one array each, versions 1 to 3, read and written without pickling.
//!
//! Read: little-endian `f8 f4 i8 i4 c16`, `u1`, `b1`, in C or Fortran order. Written: version 1, C order.

use std::io::{self, Read, Write};
use std::path::Path;

use bytes::Bytes;
use protocol::limits::ARRAY_RANK_MAX;
use protocol::value::{ArrayValue, DType};

use crate::error::ClientError;

const MAGIC: &[u8] = b"\x93NUMPY";

/// Bytes of a header. NumPy's own have about 120; structured types, which we refuse, may have more.
const HEADER_BYTES_MAX: usize = 64 * 1024;

/// NumPy aligns the data to this.
const ALIGNMENT: usize = 64;

/// Bytes of an array that is read: what one message can carry.
const DATA_BYTES_MAX: u64 = protocol::limits::FRAME_BYTES_MAX as u64;

/// Why something is no `.npy` file, or none that can be used.
#[derive(Debug, thiserror::Error)]
pub enum NpyError {
    /// It does not begin like one.
    #[error("not a .npy file: it does not begin with \\x93NUMPY; write it with numpy.save")]
    Magic,
    /// A version that does not exist (yet).
    #[error("version {0} of .npy is not known; save it with a common version of NumPy")]
    Version(u8),
    /// A header that cannot be understood.
    #[error("the header cannot be understood: {0}; save it again with numpy.save")]
    Header(&'static str),
    /// An element type that has no counterpart here.
    #[error("elements of type {0} are not supported; convert to <f8, <f4, <i8, <i4, |u1, |b1 or <c16")]
    Type(String),
    /// Less or more data than the header says.
    #[error("the header promises {promised} bytes of data, the file has {found}; it is cut off or damaged")]
    Length {
        /// What shape and type ask for.
        promised: u64,
        /// What is there.
        found: u64,
    },
    /// Reading or writing failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

struct Header {
    dtype: DType,
    fortran_order: bool,
    shape: Vec<u64>,
}

/// Reads a file.
pub fn load(path: &Path) -> Result<ArrayValue, ClientError> {
    let opened = std::fs::File::open(path).map_err(|source| ClientError::File {
        what: "read",
        path: path.to_owned(),
        source,
    })?;
    read(io::BufReader::new(opened))
        .map_err(|error| ClientError::Invalid(format!("read {}: {error}", path.display())))
}

/// Writes a file.
pub fn save(path: &Path, array: &ArrayValue) -> Result<(), ClientError> {
    let failed = |source| ClientError::File { what: "write", path: path.to_owned(), source };
    let mut file = std::fs::File::create(path).map_err(failed)?;
    write(&mut file, array).map_err(failed)
}

/// Reads an array, to the end of the input.
pub fn read(mut input: impl Read) -> Result<ArrayValue, NpyError> {
    let mut magic = [0; 8];
    read_or(&mut input, &mut magic, NpyError::Magic)?;
    let version = magic[6];
    if &magic[..6] != MAGIC {
        return Err(NpyError::Magic);
    }
    let cut_off = || NpyError::Header("it is cut off");
    let header_length = match version {
        1 => {
            let mut length = [0; 2];
            read_or(&mut input, &mut length, cut_off())?;
            usize::from(u16::from_le_bytes(length))
        }
        2 | 3 => {
            let mut length = [0; 4];
            read_or(&mut input, &mut length, cut_off())?;
            usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX)
        }
        other => return Err(NpyError::Version(other)),
    };
    if header_length > HEADER_BYTES_MAX {
        return Err(NpyError::Header("it is too long"));
    }
    let mut header = vec![0; header_length];
    read_or(&mut input, &mut header, cut_off())?;
    let header = parse_header(&String::from_utf8_lossy(&header))?;

    let promised = header
        .shape
        .iter()
        .try_fold(header.dtype.size() as u64, |bytes, &extent| bytes.checked_mul(extent))
        .filter(|&bytes| bytes <= DATA_BYTES_MAX)
        .ok_or(NpyError::Header("the array is too large"))?;
    let mut data = Vec::new();
    // Grows with what is there, not with what the header promises; one byte more shows a file that is too long.
    let found = input.take(promised + 1).read_to_end(&mut data)? as u64;
    if found != promised {
        return Err(NpyError::Length { promised, found });
    }
    if header.dtype == DType::Bool && data.iter().any(|&byte| byte > 1) {
        return Err(NpyError::Header("a truth value is neither 0 nor 1"));
    }
    if header.fortran_order {
        data = to_c_order(&data, &header.shape, header.dtype.size());
    }
    let Header { dtype, shape, .. } = header;
    ArrayValue::new(dtype, shape, Bytes::from(data)).map_err(|_| NpyError::Header("it contradicts itself"))
}

fn read_or(input: &mut impl Read, buffer: &mut [u8], short: NpyError) -> Result<(), NpyError> {
    input.read_exact(buffer).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => short,
        _ => NpyError::Io(error),
    })
}

/// Writes an array.
pub fn write(mut output: impl Write, array: &ArrayValue) -> io::Result<()> {
    let mut shape: String = array.shape.iter().map(|extent| format!("{extent}, ")).collect();
    // `(3,)`, `(3, 4)`, `()`: as Python writes tuples.
    if array.shape.len() == 1 {
        shape.truncate(shape.len() - 1);
    } else {
        shape.truncate(shape.len().saturating_sub(2));
    }
    let kind = type_name(array.dtype);
    let mut header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({shape}), }}");
    let unpadded = MAGIC.len() + 4 + header.len() + 1;
    header.extend(std::iter::repeat_n(' ', unpadded.next_multiple_of(ALIGNMENT) - unpadded));
    header.push('\n');
    let length = u16::try_from(header.len()).expect("32 axes of 20 digits each are below 64 KiB");
    output.write_all(MAGIC)?;
    output.write_all(&[1, 0])?;
    output.write_all(&length.to_le_bytes())?;
    output.write_all(header.as_bytes())?;
    output.write_all(&array.data)
}

fn type_name(dtype: DType) -> &'static str {
    match dtype {
        DType::F64 => "<f8",
        DType::F32 => "<f4",
        DType::I64 => "<i8",
        DType::I32 => "<i4",
        DType::U8 => "|u1",
        DType::Bool => "|b1",
        DType::C64 => "<c16",
    }
}

fn dtype(name: &str) -> Option<DType> {
    // Single bytes have no order; NumPy writes `|`, others `<` or nothing.
    let plain = name.trim_start_matches(['|', '<', '=']);
    DType::ALL.into_iter().find(|dtype| {
        let own = type_name(*dtype);
        own == name || (dtype.size() == 1 && own.trim_start_matches('|') == plain && !name.starts_with('>'))
    })
}

/// Reads the Python dictionary of the header: three known keys with a string, a truth value and a tuple.
fn parse_header(text: &str) -> Result<Header, NpyError> {
    let mut scanner = Scanner(text);
    let (mut found_type, mut fortran_order, mut shape) = (None, None, None);
    scanner.expect('{')?;
    while !scanner.skip('}') {
        let key = scanner.string()?;
        scanner.expect(':')?;
        match key {
            "descr" => {
                if scanner.peek() == Some('[') {
                    return Err(NpyError::Type("a record of several fields".to_owned()));
                }
                let name = scanner.string()?;
                found_type =
                    Some(dtype(name).ok_or_else(|| NpyError::Type(name.chars().take(40).collect()))?);
            }
            "fortran_order" => fortran_order = Some(scanner.truth()?),
            "shape" => shape = Some(scanner.tuple()?),
            _ => return Err(NpyError::Header("it has an unknown key")),
        }
        if !scanner.skip(',') && scanner.peek() != Some('}') {
            return Err(NpyError::Header("a comma is missing"));
        }
    }
    match (found_type, fortran_order, shape) {
        (Some(dtype), Some(fortran_order), Some(shape)) => Ok(Header { dtype, fortran_order, shape }),
        _ => Err(NpyError::Header("descr, fortran_order or shape is missing")),
    }
}

struct Scanner<'a>(&'a str);

impl<'a> Scanner<'a> {
    fn peek(&mut self) -> Option<char> {
        self.0 = self.0.trim_start();
        self.0.chars().next()
    }

    fn skip(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.0 = &self.0[wanted.len_utf8()..];
        }
        found
    }

    fn expect(&mut self, wanted: char) -> Result<(), NpyError> {
        if self.skip(wanted) { Ok(()) } else { Err(NpyError::Header("it is not a dictionary")) }
    }

    fn string(&mut self) -> Result<&'a str, NpyError> {
        let malformed = NpyError::Header("a string is missing");
        let quote = match self.peek() {
            Some(quote @ ('\'' | '"')) => quote,
            _ => return Err(malformed),
        };
        let (text, rest) = self.0[1..].split_once(quote).ok_or(malformed)?;
        self.0 = rest;
        Ok(text)
    }

    fn truth(&mut self) -> Result<bool, NpyError> {
        self.peek();
        for (word, truth) in [("True", true), ("False", false)] {
            if let Some(rest) = self.0.strip_prefix(word) {
                self.0 = rest;
                return Ok(truth);
            }
        }
        Err(NpyError::Header("fortran_order is neither True nor False"))
    }

    fn tuple(&mut self) -> Result<Vec<u64>, NpyError> {
        let mut extents = Vec::new();
        self.expect('(')?;
        while !self.skip(')') {
            self.peek();
            let digits = self.0.len() - self.0.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let extent = self.0[..digits]
                .parse()
                .map_err(|_| NpyError::Header("the shape is not a tuple of numbers"))?;
            if extents.len() == ARRAY_RANK_MAX {
                return Err(NpyError::Header("the array has too many axes"));
            }
            extents.push(extent);
            // Python 2 wrote long integers as `3L`.
            self.0 = self.0[digits..].strip_prefix('L').unwrap_or(&self.0[digits..]);
            if !self.skip(',') && self.peek() != Some(')') {
                return Err(NpyError::Header("the shape is not a tuple of numbers"));
            }
        }
        Ok(extents)
    }
}

/// Rearranges elements of `size` bytes from Fortran order (the first index varies fastest) to C order.
fn to_c_order(fortran: &[u8], shape: &[u64], size: usize) -> Vec<u8> {
    let mut c = Vec::with_capacity(fortran.len());
    let count = fortran.len() / size;
    // All extents fit: their product is the length of `fortran`, or it is empty.
    let extents: Vec<usize> = shape.iter().map(|&extent| usize::try_from(extent).unwrap_or(0)).collect();
    let mut strides = vec![0; extents.len()];
    let mut stride = 1_usize;
    for (axis, extent) in extents.iter().enumerate() {
        strides[axis] = stride;
        stride = stride.saturating_mul(*extent);
    }
    let mut index = vec![0; extents.len()];
    let mut at = 0;
    for _ in 0..count {
        c.extend_from_slice(&fortran[at * size..(at + 1) * size]);
        for axis in (0..extents.len()).rev() {
            index[axis] += 1;
            at += strides[axis];
            if index[axis] < extents[axis] {
                break;
            }
            at -= strides[axis] * index[axis];
            index[axis] = 0;
        }
    }
    c
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_file_of_numpy_2_is_read() {
        // numpy.save of array([[1., 2., 3.], [4., 5., 6.]], order='F').
        let mut file =
            b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f8', 'fortran_order': True, 'shape': (2, 3), }".to_vec();
        file.resize(127, b' ');
        file.push(b'\n');
        for element in [1.0_f64, 4.0, 2.0, 5.0, 3.0, 6.0] {
            file.extend_from_slice(&element.to_le_bytes());
        }

        let array = read(file.as_slice()).unwrap();

        assert_eq!((array.dtype, array.shape.as_slice()), (DType::F64, [2, 3].as_slice()));
        let elements: Vec<f64> =
            array.data.chunks(8).map(|bytes| f64::from_le_bytes(bytes.try_into().unwrap())).collect();
        assert_eq!(elements, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    }

    #[test]
    fn the_header_is_what_numpy_writes() {
        let array = ArrayValue::new(DType::I32, vec![3], Bytes::from(vec![0; 12])).unwrap();
        let mut file = Vec::new();
        write(&mut file, &array).unwrap();

        assert_eq!(file.len(), 128 + 12);
        assert!(file.starts_with(
            b"\x93NUMPY\x01\x00\x76\x00{'descr': '<i4', 'fortran_order': False, 'shape': (3,), }  "
        ));
        assert_eq!(file[127], b'\n');
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_a_reason() {
        let with_header = |header: &str| {
            let mut file = b"\x93NUMPY\x01\x00".to_vec();
            file.extend_from_slice(&u16::try_from(header.len()).unwrap().to_le_bytes());
            file.extend_from_slice(header.as_bytes());
            read(file.as_slice()).unwrap_err().to_string()
        };
        assert!(with_header("{'descr': '>f8', 'fortran_order': False, 'shape': (), }").contains("type >f8"));
        assert!(with_header("{'descr': [('a', '<f8')], }").contains("several fields"));
        assert!(
            with_header("{'descr': '<f8', 'fortran_order': False, 'shape': (2,), }").contains("promises 16")
        );
        let huge = "{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999, 99999999999), }";
        assert!(with_header(huge).contains("too large"));
        assert!(matches!(read(&b"PK\x03\x04abcdefgh"[..]), Err(NpyError::Magic)));
    }

    fn arrays() -> impl Strategy<Value = ArrayValue> {
        (0..DType::ALL.len(), prop::collection::vec(0_u64..5, 0..4)).prop_flat_map(|(dtype, shape)| {
            let dtype = DType::ALL[dtype];
            let bytes = usize::try_from(shape.iter().product::<u64>()).unwrap() * dtype.size();
            let byte = if dtype == DType::Bool { 0..=1_u8 } else { 0..=255 };
            prop::collection::vec(byte, bytes)
                .prop_map(move |data| ArrayValue::new(dtype, shape.clone(), data.into()).unwrap())
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(array in arrays()) {
            let mut file = Vec::new();
            write(&mut file, &array).unwrap();
            prop_assert_eq!(read(file.as_slice()).unwrap(), array);
        }

        #[test]
        fn bytes_that_come_from_anywhere_never_panic(
            header in "[\\{\\}'(), a-zA-Z:<|0-9\\[\\]]{0,80}",
            version in 0_u8..5,
            data in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let mut file = MAGIC.to_vec();
            file.extend_from_slice(&[version, 0]);
            file.extend_from_slice(&u16::try_from(header.len()).unwrap().to_le_bytes());
            file.extend_from_slice(header.as_bytes());
            file.extend_from_slice(&data);
            let _ = read(file.as_slice());
            let _ = read(data.as_slice());
        }

        #[test]
        fn a_damaged_file_never_panics(array in arrays(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut file = Vec::new();
            write(&mut file, &array).unwrap();
            let at = at.index(file.len());
            file[at] = byte;
            let _ = read(file.as_slice());
            let _ = read(&file[..at]);
        }
    }
}
