//! Little helpers for hand-written binary formats: a bounded reader over [`Bytes`] that shares
//! instead of copying, and the matching writer functions. Integers are big-endian, byte strings are
//! preceded by their length as `u32`.

use bytes::{Buf, BufMut, Bytes};

use crate::CodecError;

/// Reads fields off the front of a buffer; every read is checked.
#[derive(Clone, Debug)]
pub struct Reader {
    what: &'static str,
    rest: Bytes,
}

impl Reader {
    /// Starts reading `bytes`; `what` names the thing in errors.
    pub fn new(what: &'static str, bytes: Bytes) -> Self {
        Self { what, rest: bytes }
    }

    fn need(&self, count: usize) -> Result<(), CodecError> {
        if self.rest.len() < count {
            return Err(CodecError::Truncated { what: self.what });
        }
        Ok(())
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, CodecError> {
        self.need(1)?;
        Ok(self.rest.get_u8())
    }

    /// Four bytes, big-endian.
    pub fn u32(&mut self) -> Result<u32, CodecError> {
        self.need(4)?;
        Ok(self.rest.get_u32())
    }

    /// Eight bytes, big-endian.
    pub fn u64(&mut self) -> Result<u64, CodecError> {
        self.need(8)?;
        Ok(self.rest.get_u64())
    }

    /// A byte string with its `u32` length; shares the underlying buffer.
    pub fn bytes(&mut self) -> Result<Bytes, CodecError> {
        let length = self.u32()? as usize;
        self.need(length)?;
        Ok(self.rest.split_to(length))
    }

    /// One byte that is 0 or 1.
    pub fn flag(&mut self) -> Result<bool, CodecError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.malformed("a flag that is neither 0 nor 1")),
        }
    }

    /// Four bytes that count elements of at least `element_bytes` each. More than the bytes that are left
    /// can hold is an error, so that a vector of that capacity takes no more than a few times the input.
    pub fn count(&mut self, element_bytes: usize) -> Result<usize, CodecError> {
        let count = self.u32()? as usize;
        if count > self.rest.len() / element_bytes {
            return Err(self.malformed("more elements than bytes"));
        }
        Ok(count)
    }

    /// Checks a version byte.
    pub fn version(&mut self, known: u8) -> Result<(), CodecError> {
        let version = self.u8()?;
        if version != known {
            return Err(CodecError::UnknownVersion { what: self.what, version });
        }
        Ok(())
    }

    /// Everything that is left.
    pub fn rest(self) -> Bytes {
        self.rest
    }

    /// Bytes left.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Fails unless everything was read.
    pub fn finish(self) -> Result<(), CodecError> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(CodecError::Malformed { what: self.what, why: "bytes left over" })
    }

    /// An error that names what is being read.
    pub fn malformed(&self, why: &'static str) -> CodecError {
        CodecError::Malformed { what: self.what, why }
    }
}

/// Appends a byte string with its `u32` length. The length must fit, which every limit in
/// [`crate::limits`] guarantees.
pub fn put_bytes(out: &mut impl BufMut, bytes: &[u8]) {
    debug_assert!(u32::try_from(bytes.len()).is_ok());
    out.put_u32(bytes.len() as u32);
    out.put_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_no_larger_than_what_is_left_can_hold() {
        let count = |bytes: &'static [u8]| Reader::new("list", Bytes::from_static(bytes)).count(3);
        assert_eq!(count(&[0, 0, 0, 2, 7, 7, 7, 7, 7, 7]), Ok(2));
        assert!(count(&[0, 0, 0, 2, 7, 7, 7, 7, 7]).is_err());
        assert!(count(&[0xFF; 4]).is_err() && count(&[0, 0, 0]).is_err());
    }

    #[test]
    fn a_flag_is_zero_or_one() {
        let flag = |byte: u8| Reader::new("flag", Bytes::copy_from_slice(&[byte])).flag();
        assert_eq!((flag(0), flag(1)), (Ok(false), Ok(true)));
        assert!(flag(2).is_err() && flag(0xFF).is_err());
    }
}
