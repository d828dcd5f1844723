//! Answers what other nodes ask about images.

use std::io::{Result, Seek as _, SeekFrom};
use std::sync::Arc;

use axum::body::Body;
use axum::http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE};
use axum::http::{HeaderMap, Method, Request, Response, StatusCode};
use bytes::{Bytes, BytesMut};
use hyper::body::Incoming;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use weft_images::{Digest, Store};

use super::fetches::Fetches;
use super::shelf::{Shelf, is_part};
use super::turn::Stage;
use super::words::{Asked, PROGRESS_HEADER, STAGE_HEADER};
use crate::blocking::blocking;

/// Contents that are sent at a time, to all other nodes together. Whoever comes on top asks another
/// one, or again.
const SENT_AT_A_TIME: usize = 32;
/// Bytes of a piece.
const PIECE: usize = 64 << 10;
/// Pieces of a content that are read before the other node has taken those before.
const AHEAD: usize = 2;

/// What there is to answer with.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) store: Store,
    pub(super) fetches: Arc<Fetches>,
    pub(super) shelf: Shelf,
    places: Arc<Semaphore>,
}

/// Where a content is.
enum Place {
    Here(std::fs::File, u64),
    Coming(u64),
    Absent,
}

impl Desk {
    /// A desk in front of a store.
    pub(super) fn new(store: Store, fetches: Arc<Fetches>) -> Self {
        Self {
            store,
            fetches,
            shelf: Shelf::default(),
            places: Arc::new(Semaphore::new(SENT_AT_A_TIME)),
        }
    }

    /// The answer to a question of another node. What fails here is its answer, too.
    pub(super) async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Answer {
        let (parts, _) = request.into_parts();
        let head = match parts.method {
            Method::HEAD => true,
            Method::GET => false,
            _ => return plain(StatusCode::METHOD_NOT_ALLOWED),
        };
        let Some(asked) = Asked::of(parts.uri.path()) else {
            return plain(StatusCode::NOT_FOUND);
        };
        let offset = offset(&parts.headers);
        let this = Arc::clone(&self);
        let answered = match asked {
            Asked::Blob(digest) if head => blocking(move || this.place(&digest)).await,
            Asked::Blob(digest) => return self.send(digest, offset).await,
            Asked::Turn(image) => return self.turn(image).await,
            Asked::Name(name) => {
                let found = blocking(move || this.store.find(&name.to_string())).await;
                return match found {
                    Ok(Ok(Some(image))) => Response::new(Body::from(image.manifest.to_string())),
                    Ok(Ok(None)) => plain(StatusCode::NOT_FOUND),
                    Ok(Err(error)) => failed(&error),
                    Err(error) => failed(&error),
                };
            }
        };
        match answered {
            Ok(Place::Here(_, size)) => told(StatusCode::OK, CONTENT_LENGTH.as_str(), size),
            Ok(Place::Coming(bytes)) => told(StatusCode::ACCEPTED, PROGRESS_HEADER, bytes),
            Ok(Place::Absent) => plain(StatusCode::NOT_FOUND),
            Err(error) => failed(&error),
        }
    }

    /// Where a content is. Blocks.
    fn place(&self, digest: &Digest) -> Place {
        let here = || match self.store.open_blob(digest) {
            Ok((file, size)) => Some(Place::Here(file, size)),
            // It was removed a moment ago.
            Err(error) => {
                tracing::debug!(%digest, %error, "a content is not handed out");
                None
            }
        };
        let known = self.fetches.known();
        let parts = known
            .iter()
            .filter(|(image, _, _)| is_part(&self.store, image, digest));
        let mut coming = None;
        for (_, stage, fetch) in parts {
            if self.store.has(digest) {
                return here().unwrap_or(Place::Absent);
            }
            if *stage == Stage::Fetches {
                coming = Some(fetch.progress.done());
            }
        }
        if let Some(bytes) = coming {
            return Place::Coming(bytes);
        }
        match self.shelf.contents(&self.store) {
            Ok(contents) => match contents.get(digest) {
                Some(bytes) if self.store.has(digest) => here()
                    .filter(|place| is_of_size(digest, place, *bytes))
                    .unwrap_or(Place::Absent),
                _ => Place::Absent,
            },
            Err(error) => {
                tracing::warn!(%error, "images are not handed out to other nodes");
                Place::Absent
            }
        }
    }

    /// What is done about an image.
    async fn turn(self: Arc<Self>, image: Digest) -> Answer {
        let this = Arc::clone(&self);
        let asked = image.clone();
        let here = blocking(move || {
            let contents = this.shelf.contents(&this.store);
            contents.is_ok_and(|contents| contents.contains_key(&asked) && this.store.has(&asked))
        });
        match here.await {
            Ok(true) => return plain(StatusCode::OK),
            Ok(false) => {}
            Err(error) => return failed(&error),
        }
        let known = self.fetches.known().into_iter();
        let stages = known.filter(|(known, _, _)| *known == image);
        // Of several names of one image: whoever is furthest.
        let furthest = stages
            .map(|(_, stage, _)| stage)
            .max_by_key(|stage| match stage {
                Stage::Follows => 0,
                Stage::Wants => 1,
                Stage::Claims => 2,
                Stage::Fetches => 3,
            });
        match furthest {
            Some(stage) => told(StatusCode::ACCEPTED, STAGE_HEADER, stage.as_str()),
            None => plain(StatusCode::NOT_FOUND),
        }
    }

    async fn send(self: Arc<Self>, digest: Digest, offset: u64) -> Answer {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            return plain(StatusCode::SERVICE_UNAVAILABLE);
        };
        let opened = blocking(move || -> Result<Place> {
            let mut found = self.place(&digest);
            if let Place::Here(file, size) = &mut found
                && offset < *size
            {
                file.seek(SeekFrom::Start(offset))?;
            }
            Ok(found)
        });
        let (file, size) = match opened.await {
            Ok(Ok(Place::Here(file, size))) => (file, size),
            Ok(Ok(Place::Coming(bytes))) => {
                return told(StatusCode::ACCEPTED, PROGRESS_HEADER, bytes);
            }
            Ok(Ok(Place::Absent)) => return plain(StatusCode::NOT_FOUND),
            Ok(Err(error)) => return failed(&error),
            Err(error) => return failed(&error),
        };
        if offset > 0 && offset >= size {
            return told(
                StatusCode::RANGE_NOT_SATISFIABLE,
                CONTENT_RANGE.as_str(),
                format!("bytes */{size}"),
            );
        }
        let answer = Response::builder()
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(ACCEPT_RANGES, "bytes")
            .header(CONTENT_LENGTH, size - offset);
        let answer = if offset == 0 {
            answer
        } else {
            let range = format!("bytes {offset}-{}/{size}", size.saturating_sub(1));
            answer
                .status(StatusCode::PARTIAL_CONTENT)
                .header(CONTENT_RANGE, range)
        };
        let body = pieces(tokio::fs::File::from_std(file), size - offset, place);
        let answer = answer.body(Body::from_stream(ReceiverStream::new(body)));
        answer.unwrap_or_else(|error| failed(&error))
    }
}

/// Whether a content has all its bytes still: a loss of power may have cut it.
fn is_of_size(digest: &Digest, place: &Place, wanted: Option<u64>) -> bool {
    let (Place::Here(_, size), Some(wanted)) = (place, wanted) else {
        return true;
    };
    if *size != wanted {
        tracing::warn!(%digest, size, wanted, "a content is damaged and not handed out");
    }
    *size == wanted
}

/// What a node is answered.
pub(super) type Answer = Response<Body>;

/// The first byte that is asked for. A range that is no such one asks for everything, as RFC 9110
/// section 14.2 allows.
fn offset(headers: &HeaderMap) -> u64 {
    let range = headers.get(RANGE).and_then(|range| range.to_str().ok());
    let first = range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-'));
    first.and_then(|first| first.parse().ok()).unwrap_or(0)
}

/// So many bytes of a file, a few pieces ahead of whoever takes them.
fn pieces(
    mut file: impl AsyncRead + Unpin + Send + 'static,
    bytes: u64,
    place: OwnedSemaphorePermit,
) -> mpsc::Receiver<Result<Bytes>> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        let mut left = bytes;
        while left > 0 {
            let mut piece = BytesMut::with_capacity(PIECE);
            let most = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
            let read = (&mut file).take(most as u64).read_buf(&mut piece).await;
            let piece = match read {
                // It is shorter than it was: the connection ends before the content does.
                Ok(0) => Err(std::io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => {
                    left = left.saturating_sub(read as u64);
                    Ok(piece.freeze())
                }
                Err(error) => Err(error),
            };
            let over = piece.is_err();
            // Nobody takes it any more: so be it.
            if sender.send(piece).await.is_err() || over {
                break;
            }
        }
        drop(place);
    });
    receiver
}

/// For whoever is no member.
pub(super) fn refused() -> Answer {
    plain(StatusCode::FORBIDDEN)
}

fn plain(status: StatusCode) -> Answer {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = status;
    answer
}

fn told(status: StatusCode, name: &str, value: impl ToString) -> Answer {
    let answer = Response::builder()
        .status(status)
        .header(name, value.to_string())
        .body(Body::empty());
    answer.unwrap_or_else(|error| failed(&error))
}

fn failed(error: &dyn std::fmt::Display) -> Answer {
    tracing::warn!(%error, "a question of another node about images has no answer");
    plain(StatusCode::INTERNAL_SERVER_ERROR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_open_range_from_a_byte_on_counts() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RANGE, text.parse().expect("a header"));
            offset(&headers)
        };
        assert_eq!(offset(&HeaderMap::new()), 0);
        assert_eq!(of("bytes=17-"), 17);
        for other in [
            "bytes=17-20",
            "bytes=-5",
            "bytes=0-1,5-",
            "lines=3-",
            "bytes=x-",
            "bytes=99999999999999999999999-",
        ] {
            assert_eq!(of(other), 0, "{other}");
        }
    }

    #[tokio::test]
    async fn a_content_comes_whole_and_one_that_is_cut_says_so() {
        let places = Arc::new(Semaphore::new(1));
        let place = || Arc::clone(&places).try_acquire_owned().expect("a place");
        let content = vec![7; 3 * PIECE + 5];
        let read = |bytes: u64, place| {
            let mut pieces = pieces(std::io::Cursor::new(content.clone()), bytes, place);
            async move {
                let (mut whole, mut failed) = (Vec::new(), false);
                while let Some(piece) = pieces.recv().await {
                    match piece {
                        Ok(piece) => whole.extend_from_slice(&piece),
                        Err(_) => failed = true,
                    }
                }
                (whole.len(), failed)
            }
        };
        let len = content.len();
        assert_eq!(read(len as u64, place()).await, (len, false));
        assert_eq!(read(10, place()).await, (10, false));
        assert_eq!(read(len as u64 + 1, place()).await, (len, true));
        assert_eq!(places.available_permits(), 1, "places are given back");
    }
}
