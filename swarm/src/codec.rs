//! Protobuf, with a bound on how many things one message may hold.

use std::marker::PhantomData;

use bytes::Buf as _;
use prost::Message;
use prost::encoding::{DecodeContext, decode_key, skip_field};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder};
use tonic_prost::{ProstCodec, ProstEncoder};

/// Fields of one message, repeated ones counted each time. Two bytes of the wire can become a
/// structure of fifty in memory, so the length of a message alone does not bound what it costs.
pub(crate) const MAX_FIELDS: usize = 4096;

/// What all calls use in place of [`ProstCodec`].
#[derive(Debug)]
pub(crate) struct BoundedCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for BoundedCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for BoundedCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = BoundedDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::default().encoder()
    }

    fn decoder(&mut self) -> Self::Decoder {
        BoundedDecoder(PhantomData)
    }
}

/// Counts before it decodes.
#[derive(Debug)]
pub(crate) struct BoundedDecoder<U>(PhantomData<U>);

impl<U: Message + Default> Decoder for BoundedDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        // The whole message lies in one piece.
        check(buf.chunk())?;
        // Status codes as ProstDecoder has them.
        let message = U::decode(buf).map_err(|e| Status::internal(e.to_string()))?;
        Ok(Some(message))
    }
}

/// Walks over the fields of a message, which allocates nothing.
fn check(mut message: &[u8]) -> Result<(), Status> {
    let mut fields = 0;
    while !message.is_empty() {
        fields += 1;
        if fields > MAX_FIELDS {
            return Err(Status::resource_exhausted(format!(
                "the message holds more than {MAX_FIELDS} fields; send it in parts"
            )));
        }
        decode_key(&mut message)
            .and_then(|(tag, wire)| skip_field(wire, tag, &mut message, DecodeContext::default()))
            .map_err(|e| Status::internal(e.to_string()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{TaskUpdate, UpdateTaskStatusRequest};

    fn request(updates: usize) -> Vec<u8> {
        UpdateTaskStatusRequest {
            schema: 1,
            updates: vec![TaskUpdate::default(); updates],
        }
        .encode_to_vec()
    }

    #[test]
    fn fields_are_counted_before_they_cost_anything() {
        check(&[]).unwrap();
        check(&request(MAX_FIELDS - 1)).unwrap();
        let bomb = request(MAX_FIELDS);
        assert_eq!(bomb.len(), 2 + 2 * MAX_FIELDS, "two bytes each");
        let status = check(&bomb).unwrap_err();
        assert_eq!(status.code(), tonic::Code::ResourceExhausted);
        // Fields that nobody knows count as well.
        assert!(check(&[0x78, 0x00].repeat(MAX_FIELDS + 1)).is_err());
    }

    #[test]
    fn what_is_cut_off_or_nonsense_is_refused() {
        let whole = UpdateTaskStatusRequest {
            schema: 1,
            updates: vec![TaskUpdate {
                task: "t".to_owned(),
                status_json: vec![7; 40],
            }],
        }
        .encode_to_vec();
        check(&whole).unwrap();
        assert!(check(&whole[..whole.len() - 1]).is_err());
        assert!(check(&[0xff; 12]).is_err());
        // Groups in groups.
        assert!(check(&[0x0b; 5000]).is_err());
    }

    /// Fields at the top of a message, by the slowest way: each decoded as the only one.
    fn tops(mut message: &[u8]) -> Option<usize> {
        let mut count = 0;
        while !message.is_empty() {
            let (tag, wire) = decode_key(&mut message).ok()?;
            skip_field(wire, tag, &mut message, DecodeContext::default()).ok()?;
            count += 1;
        }
        Some(count)
    }

    proptest::proptest! {
        // As long as wanted with PROPTEST_CASES.
        #[test]
        fn whatever_is_let_in_is_whole_and_bounded(
            updates in 0_usize..5000,
            cut in 0_usize..200,
            flips in proptest::collection::vec((0_usize..20_000, 0_u8..=255), 0..4),
        ) {
            let mut bytes = request(updates);
            for (at, with) in flips {
                let len = bytes.len();
                bytes[at % len] ^= with;
            }
            bytes.truncate(bytes.len().saturating_sub(cut));
            let verdict = check(&bytes);
            match tops(&bytes) {
                Some(count) => proptest::prop_assert_eq!(verdict.is_ok(), count <= MAX_FIELDS),
                None => proptest::prop_assert!(verdict.is_err()),
            }
            if verdict.is_ok() && let Ok(decoded) = UpdateTaskStatusRequest::decode(&*bytes) {
                proptest::prop_assert!(decoded.updates.len() <= MAX_FIELDS);
            }
        }
    }
}
