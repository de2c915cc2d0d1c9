//! How messages travel in gRPC: protobuf, and a look at what a request would become before it is decoded.

use std::marker::PhantomData;

use prost::bytes::Buf;
use prost::{Message, Name};
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder};
use tonic_prost::{ProstDecoder, ProstEncoder};

use crate::weight;

/// What a request takes before its first byte has come. tonic's default of 8 KiB would be most of what an
/// open request costs; for longer messages the buffer grows at once to their length.
const FIRST_BUFFER_BYTES: usize = 1024;
/// Answers that are ready are sent together up to this size: tonic's default.
const YIELD_BYTES: usize = 32 * 1024;

/// The codec of all services and their clients.
pub(crate) struct BoundedCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for BoundedCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for BoundedCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Name + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = BoundedDecoder<U>;

    fn encoder(&mut self) -> ProstEncoder<T> {
        ProstEncoder::default()
    }

    fn decoder(&mut self) -> BoundedDecoder<U> {
        BoundedDecoder(ProstDecoder::default())
    }
}

/// Refuses what would become too large.
pub(crate) struct BoundedDecoder<U>(ProstDecoder<U>);

impl<U: Message + Default + Name> Decoder for BoundedDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        // The whole message lies in one piece; if it ever does not, the largest one is looked at.
        weight::check::<U>(buffer.chunk())
            .map_err(|error| Status::out_of_range(error.to_string()))?;
        self.0.decode(buffer)
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(FIRST_BUFFER_BYTES, YIELD_BYTES)
    }
}
