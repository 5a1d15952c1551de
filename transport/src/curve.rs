//! CURVE keys: made, read and shown as 40 characters of Z85.

use std::fmt;
use std::os::raw::c_char;

use zeroize::Zeroizing;

use crate::error::{TransportError, check};

const KEY_CHARACTERS: usize = 40;
const KEY_BYTES: usize = 32;

/// A public key; of a server it is what admits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey(String);

/// A secret key: wiped from memory when dropped, never shown.
#[derive(Clone)]
pub struct SecretKey(Zeroizing<String>);

/// A secret key and the public key that belongs to it.
#[derive(Debug, Clone)]
pub struct Keypair {
    /// May be told.
    pub public: PublicKey,
    /// May not.
    pub secret: SecretKey,
}

impl Keypair {
    /// A fresh pair from the system's random numbers.
    pub fn generate() -> Result<Keypair, TransportError> {
        let mut public = [0_u8; KEY_CHARACTERS + 1];
        let mut secret = Zeroizing::new([0_u8; KEY_CHARACTERS + 1]);
        // SAFETY: both places have the 41 bytes that zmq_curve_keypair(3) writes.
        check(unsafe {
            zmq_sys::zmq_curve_keypair(
                public.as_mut_ptr().cast::<c_char>(),
                secret.as_mut_ptr().cast::<c_char>(),
            )
        })
        .map_err(|source| TransportError::CurveMissing { source })?;
        Ok(Keypair {
            public: PublicKey(parse(&String::from_utf8_lossy(&public[..KEY_CHARACTERS]))?),
            secret: SecretKey(Zeroizing::new(parse(&String::from_utf8_lossy(&secret[..KEY_CHARACTERS]))?)),
        })
    }

    /// A pair that was made elsewhere; whether the two belong together shows in the first handshake.
    pub fn parse(public: &str, secret: &str) -> Result<Keypair, TransportError> {
        Ok(Keypair { public: PublicKey::parse(public)?, secret: SecretKey::parse(secret)? })
    }
}

impl PublicKey {
    /// Reads 40 characters of Z85.
    pub fn parse(text: &str) -> Result<PublicKey, TransportError> {
        parse(text).map(PublicKey)
    }

    /// As it is written in connection files.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// As ZeroMQ tells it of a peer.
    pub fn bytes(&self) -> Result<[u8; KEY_BYTES], TransportError> {
        let mut bytes = [0; KEY_BYTES];
        let text = std::ffi::CString::new(self.0.as_str())
            .map_err(|_| TransportError::CurveKey { found: self.0.len() })?;
        // SAFETY: 40 characters are decoded to the 32 bytes that there is room for; the text ends with a zero.
        let decoded = unsafe { zmq_sys::zmq_z85_decode(bytes.as_mut_ptr(), text.as_ptr()) };
        if decoded.is_null() { Err(TransportError::CurveKey { found: self.0.len() }) } else { Ok(bytes) }
    }
}

impl SecretKey {
    /// Reads 40 characters of Z85.
    pub fn parse(text: &str) -> Result<SecretKey, TransportError> {
        parse(text).map(|key| SecretKey(Zeroizing::new(key)))
    }

    /// The key itself, for a socket or for the environment of a child; not for logs.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SecretKey(…)")
    }
}

fn parse(text: &str) -> Result<String, TransportError> {
    let z85 = |byte: u8| byte.is_ascii_alphanumeric() || b".-:+=^!/*?&<>()[]{}@%$#".contains(&byte);
    if text.len() != KEY_CHARACTERS || !text.bytes().all(z85) {
        return Err(TransportError::CurveKey { found: text.chars().count() });
    }
    Ok(text.to_owned())
}
