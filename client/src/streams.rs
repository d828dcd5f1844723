//! Calls whose question or answer comes in pieces: archives, and lines about what takes long.

use anyhow::{Context as _, anyhow};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;

use super::{ANSWER_TIMEOUT, Client, MAX_ANSWER, Pieces};

impl Client {
    /// POST without a body, with these headers besides, of an answer that goes on.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn post_stream(
        &self,
        path: &str,
        headers: &[(&str, &str)],
    ) -> anyhow::Result<Pieces> {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header("host", "weftd");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::<Bytes>::default())?;
        let stream = self.connect().await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(connection);
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, sender.send_request(request)).await;
        let answer =
            answer.with_context(|| format!("weftd at {} does not answer", self.host))??;
        let status = answer.status();
        let body = answer.into_body();
        if status.is_success() {
            return Ok(Pieces {
                body,
                _driver: driver,
                _asked: None,
            });
        }
        let body = Limited::new(body, MAX_ANSWER).collect().await;
        let body = body.map_err(|e| anyhow!("{e}"))?.to_bytes();
        Err(self.refused(status, &body).into())
    }
}
